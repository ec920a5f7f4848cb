"""The table of who may say what, and the door that holds messages against it."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from swarmrt.errors import AccessError
from swarmrt.ids import BETWEEN_PROCESSES, NO_SEAT, PeerId, Seats
from swarmrt.messages import (
    ALL_MESSAGES,
    Backward,
    Beacon,
    Claim,
    Ending,
    Forward,
    GetState,
    Knock,
    Message,
    Part,
    Prepare,
    Probe,
    Renewed,
    Unable,
)
from swarmrt.permissions import OF_PROCESSES, TO_PEER, TO_TRAINER, Sender, senders
from swarmrt.runtime.access.door import GuardedDoor
from swarmrt.runtime.limits.quotas import Quotas
from swarmrt.wire.limits import Limits
from tests.papers import Owner

ME, OTHER, TRAINER = PeerId("QmMe"), PeerId("QmOther"), PeerId("QmTrainer")
STRANGERS = {Knock, Renewed}


def test_every_message_is_taken_from_somebody_and_from_strangers_only_what_proves_itself() -> None:
    assert set(TO_PEER) | set(TO_TRAINER) == set(ALL_MESSAGES)
    for table in (TO_PEER, TO_TRAINER):
        assert all(table.values())
        assert {kind for kind, who in table.items() if Sender.STRANGER in who} <= STRANGERS


def test_what_the_trainer_says_is_taken_from_nobody_else() -> None:
    commands = {kind for kind, who in TO_PEER.items() if who == {Sender.TRAINER}}
    assert {kind.__name__ for kind in commands} >= {
        "Hail", "Admit", "Granted", "Recover", "Standing", "Prepare", "Apply", "Drain", "Finish",
        "Welcome", "NotInvited", "Barred", "LeftOut", "SayEvery",
    }  # fmt: skip
    assert not commands & set(TO_TRAINER)


@pytest.mark.parametrize(
    ("of", "to", "expected"),
    [
        (0, 1, {Sender.BEFORE, Sender.FIRST}),
        (2, 1, {Sender.AFTER, Sender.LAST}),
        (1, 1, {Sender.SAME}),
        (NO_SEAT, 1, set()),
        (NO_SEAT, 0, set()),
        (0, NO_SEAT, {Sender.FIRST}),
    ],
)
def test_member_is_what_its_seat_makes_it(of: int, to: int, expected: set[Sender]) -> None:
    assert senders(Seats(of, to), 3) == {Sender.MEMBER, *expected}


def test_member_speaks_for_its_own_seats_alone() -> None:
    """Nobody believes a seat at a stage that its membership does not name."""
    doors = Doors()
    doors.shows(OTHER, 0, 1)
    assert doors.door.may_say(OTHER, Forward, Seats(0, 1))
    assert doors.door.may_say(OTHER, Part, Seats(1, 1))
    assert not doors.door.may_say(OTHER, Backward, Seats(2, 1))
    assert not doors.door.may_say(OTHER, Forward, Seats(1, 1))
    assert not doors.door.may_say(OTHER, Forward, BETWEEN_PROCESSES)


class Doors:
    """A peer of stage 1 of 3, and what others show it."""

    def __init__(self, *, is_open: bool = False, is_trainer: bool = False) -> None:
        self.owner, self.refused = Owner(), Counter[str]()
        self.to = NO_SEAT if is_trainer else 1
        self.door = GuardedDoor(
            self.owner.guest(), ME, num_stages=3, is_trainer=is_trainer,
            is_open=is_open, refused=self.refused,
        )  # fmt: skip

    def shows(self, peer: PeerId, *stages: int, for_s: float = 600.0) -> None:
        self.door.greet(peer, self.owner.signer.membership(peer, stages, time.time() + for_s))

    def seats(self, peer: PeerId) -> list[Seats]:
        """Return the ends of what a peer may say from one of its seats, or from none."""
        its = (NO_SEAT, *self.door.credential(peer).stages)
        return [Seats(of, to) for of in its for to in {NO_SEAT, self.to}]

    def taken(self, peer: PeerId) -> set[type[Message]]:
        return {
            kind
            for kind in ALL_MESSAGES
            for seats in self.seats(peer)
            if self.door.may_say(peer, kind, seats)
        }


def test_stranger_is_taken_at_its_word_in_nothing_and_that_is_counted() -> None:
    doors = Doors()
    assert doors.taken(OTHER) == {Renewed} and not doors.door.is_known(OTHER)
    assert doors.refused["Forward"] == 2  # to the seat here, and to the process
    assert Doors(is_trainer=True).taken(OTHER) == {Knock, Renewed}
    assert Probe in Doors(is_open=True).taken(OTHER)
    assert not Doors(is_open=True).door.is_known(OTHER)  # it has few links and says little


def test_who_was_invited_may_say_why_it_does_not_come() -> None:
    """And nothing else to the trainer, before it knocks."""
    doors = Doors(is_open=True, is_trainer=True)
    assert Unable in doors.taken(OTHER) and not {Ending, Beacon, Claim} & doors.taken(OTHER)
    assert Unable not in Doors(is_trainer=True).taken(OTHER)


def test_member_of_the_stage_before_gives_work_and_no_commands() -> None:
    doors = Doors()
    doors.shows(OTHER, 0)
    taken = doors.taken(OTHER)
    assert Forward in taken and not {Backward, Part, Prepare, GetState} & taken
    doors.shows(OTHER, 1, for_s=700)
    assert {Part, GetState} <= doors.taken(OTHER) and Forward not in doors.taken(OTHER)


def test_what_processes_say_is_said_to_no_seat() -> None:
    doors = Doors()
    doors.shows(OTHER, 1)
    assert doors.door.may_say(OTHER, Probe, BETWEEN_PROCESSES)
    assert not any(doors.door.may_say(OTHER, kind, Seats(1, 1)) for kind in OF_PROCESSES)


def test_last_stage_alone_claims() -> None:
    doors = Doors(is_trainer=True)
    doors.shows(OTHER, 1)
    assert Beacon in doors.taken(OTHER) and Claim not in doors.taken(OTHER)
    doors.shows(OTHER, 2, for_s=700)
    assert Claim in doors.taken(OTHER)


def test_trainer_is_who_the_owner_says() -> None:
    doors = Doors()
    doors.door.greet(TRAINER, doors.owner.signer.helm(TRAINER, time.time() + 600))
    assert {Prepare, Forward, GetState} <= doors.taken(TRAINER)
    with pytest.raises(AccessError):
        doors.door.greet(OTHER, doors.owner.signer.helm(TRAINER, time.time() + 600))


def test_invited_peer_may_be_probed_and_knock() -> None:
    doors = Doors(is_trainer=True)
    doors.door.greet(OTHER, doors.owner.invite.pass_for(doors.owner.run, OTHER, time.time()))
    assert {Knock, Probe} <= doors.taken(OTHER) and Beacon not in doors.taken(OTHER)


def test_membership_that_has_ended_or_was_taken_is_none() -> None:
    doors = Doors()
    doors.shows(OTHER, 0, for_s=-120)
    assert Forward not in doors.taken(OTHER)
    doors.shows(OTHER, 0)
    assert Forward in doors.taken(OTHER)
    doors.door.bar([OTHER])
    doors.shows(OTHER, 0)
    assert doors.taken(OTHER) == {Renewed} and not doors.door.is_known(OTHER)


def test_older_word_does_not_take_the_place_of_a_newer_one() -> None:
    doors = Doors()
    doors.shows(OTHER, 0, 1)
    doors.shows(OTHER, 0, for_s=60)
    assert doors.door.credential(OTHER).stages == (0, 1)


def test_whoever_has_a_link_is_remembered_however_many_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a run that is open to all anybody makes up as many members as it likes."""
    most = 16
    monkeypatch.setattr("swarmrt.runtime.access.door.MOST_GONE", most)
    doors = Doors(is_open=True, is_trainer=True)
    quotas = Quotas(Limits.of(1 << 20), 4, door=doors.door)
    quota = quotas.enter(OTHER, print)
    doors.shows(OTHER, 1)
    for number in range(10 * most):
        made_up = PeerId(f"made-up-{number}")
        link = quotas.enter(made_up, print)
        doors.shows(made_up, 1)
        quotas.leave(link)
    assert Beacon in doors.taken(OTHER)
    assert len(doors.door._credentials) <= most + 1
    quotas.leave(quota)
    assert len(doors.door._credentials) <= most and doors.door.is_known(OTHER)
