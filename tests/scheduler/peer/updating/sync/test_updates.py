"""Updates by the owners of parts: what a peer and the trainer decide about them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from swarmrt.ids import PeerId
from swarmrt.messages import (
    Admit,
    Applied,
    Apply,
    Beacon,
    Hail,
    Message,
    Part,
    Prepare,
    Prepared,
    Ready,
    Refused,
    Update,
    Updated,
)
from swarmrt.scheduler.events import (
    GradientCombined,
    PartSummed,
    PartUnfit,
    PartUpdated,
    PeerLost,
    StateLoaded,
    UpdateJoined,
)
from swarmrt.scheduler.instructions import (
    DropPart,
    DropRound,
    JoinUpdate,
    KeepPart,
    KeepUnlike,
    ReportUnlike,
    Send,
    StepOptimizer,
    UpdatedPart,
    UpdatePart,
)
from tests.scheduler.peer_core import ME, TRAINER, A, B, Peer, sent
from tests.scheduler.trainer_core import Habit, Swarm, bends

NEW = PeerId("new")
ROSTER = ((A, (0,)), (ME, ()))
MINE = Part(1, 0, 7, 1, True, True)
ITS = Part(1, 0, 7, 0, True, True)
JOIN = JoinUpdate(0, 7, 2, (A, ME), 2.0)  # and look at what others made


def prepare(number: int = 7, listeners: tuple[PeerId, ...] = (NEW,)) -> Prepare:
    return Prepare(1, 0, number, ROSTER, listeners, 10, by_owners=True)


def combined() -> Peer:
    """One that holds the whole gradient of round 7."""
    peer = Peer()
    peer.get(prepare())
    summed = peer.feed(PartSummed(0, 7, 1))
    assert [to for to, _ in sent(summed, Part)] == [A], "a newcomer gets what comes of it"
    peer.get(Part(1, 0, 7, 0, True), A)
    told = peer.feed(GradientCombined(0, 7, "g", 1.0))
    assert sent(told, Prepared) == [(TRAINER, Prepared(1, 0, 7, "g", 1.0))]
    return peer


def updated() -> Peer:
    """One that holds the whole state after it, too."""
    peer = combined()
    peer.get(Update(1, 0, 7, 2.0))
    peer.feed(PartUpdated(0, 7, 1))
    peer.get(ITS, A)
    peer.feed(UpdateJoined(0, 7, "s"))
    return peer


def beacon_of(peer: Peer) -> Beacon:
    [(_, beacon)] = sent(peer.get(Hail(2)), Beacon)
    assert isinstance(beacon, Beacon)
    return beacon


def test_owner_updates_its_parts_and_all_adopt_them() -> None:
    peer = combined()
    assert peer.get(Update(1, 0, 7, 2.0)) == [UpdatePart(0, 7, 1, 2, 2.0)]
    given = peer.feed(PartUpdated(0, 7, 1))
    payload = UpdatedPart(0, 7, 1, 2)
    assert given == [Send(A, MINE, payload), Send(NEW, MINE, payload)]
    kept = peer.get(ITS, A)
    assert kept == [KeepPart(A, 0, 7, 0, True, 2, True), JOIN]
    told = peer.feed(UpdateJoined(0, 7, "s"))
    assert sent(told, Updated) == [(TRAINER, Updated(1, 0, 7, "s"))]
    assert peer.get(Apply(1, 0, 7, 2.0, False)) == [StepOptimizer(0, 7, 2.0, False, adopt=2)]


def test_nothing_is_applied_before_all_of_it_is_here() -> None:
    peer = combined()
    assert peer.get(Apply(1, 0, 7, 2.0, False)) == []
    assert not sent(peer.get(Update(1, 0, 7, 2.0)), Updated)


def test_repeated_words_change_nothing() -> None:
    peer = combined()
    peer.get(Update(1, 0, 7, 2.0))
    assert peer.get(Update(1, 0, 7, 2.0)) == []
    peer = updated()
    assert peer.get(ITS, A) == []
    assert sent(peer.get(Update(1, 0, 7, 2.0)), Updated) == [(TRAINER, Updated(1, 0, 7, "s"))]


@pytest.mark.parametrize(
    "message", [Update(1, 0, 6, 2.0), Update(1, 1, 7, 2.0), Update(2, 0, 7, 2.0)]
)
def test_word_of_another_round_is_not_heeded(message: Update) -> None:
    assert combined().get(message) == []


def test_nobody_updates_before_the_gradient_is_whole_nor_in_other_rounds() -> None:
    peer = Peer()
    peer.get(prepare())
    assert peer.get(Update(1, 0, 7, 2.0)) == []
    peer = Peer()
    peer.get(Prepare(1, 0, 7, ((ME, ()),), (), 10))
    peer.feed(PartSummed(0, 7, 0))
    peer.feed(GradientCombined(0, 7, "", 1.0))
    assert peer.get(Update(1, 0, 7, 2.0)) == []
    assert peer.get(ITS, A) == []


def test_part_counts_from_its_owner_once_and_where_there_is_such_a_part() -> None:
    peer = combined()
    assert peer.get(ITS, B) == []
    assert peer.get(Part(1, 0, 7, 1, True, True), A) == [], "this peer's own"
    assert peer.get(Part(1, 0, 7, 2, True, True), A) == []
    assert peer.get(ITS, A) and peer.get(ITS, A) == []


def test_parts_that_come_before_the_prepare_are_kept_and_strangers_dropped() -> None:
    peer = Peer()
    assert peer.get(ITS, A) == [KeepPart(A, 0, 7, 0, True, 0, True)]
    peer.get(ITS, B)
    assert DropPart(B, 0, 7, 0, True, True) in peer.get(prepare())
    peer.feed(PartSummed(0, 7, 1))
    peer.get(Part(1, 0, 7, 0, True), A)
    peer.feed(GradientCombined(0, 7, "g", 1.0))
    peer.get(Update(1, 0, 7, 2.0))
    assert JOIN in peer.feed(PartUpdated(0, 7, 1))


def test_part_of_another_length_is_told_with_its_sender() -> None:
    peer = combined()
    peer.get(Update(1, 0, 7, 2.0))
    [(_, refused)] = sent(peer.feed(PartUnfit(0, 7, A, "has 3 values where 5 belong")), Refused)
    assert refused.unfit == A


def test_void_round_leaves_nothing_of_its_update() -> None:
    peer = combined()
    peer.get(Update(1, 0, 7, 2.0))
    assert DropRound(0, 7) in peer.get(prepare(8))
    assert peer.feed(PartUpdated(0, 7, 1)) == []
    assert peer.feed(UpdateJoined(0, 7, "s")) == [DropRound(0, 7)]


def test_update_that_is_here_outlives_a_trainer_and_one_under_way_does_not() -> None:
    peer = updated()
    peer.feed(PeerLost(TRAINER, "killed"))
    assert beacon_of(peer).prepared == 7
    assert peer.get(Apply(2, 0, 7, 2.0, False)) == [StepOptimizer(0, 7, 2.0, False, adopt=2)]
    peer = combined()
    peer.get(Update(1, 0, 7, 2.0))
    assert DropRound(0, 7) in peer.feed(PeerLost(TRAINER, "killed"))
    assert beacon_of(peer).prepared == -1


def test_newcomer_adopts_what_it_has_missed_one_after_the_other() -> None:
    peer = Peer()
    peer.get(Admit(1, 2, 3, "three", -1, 0.0, (A,)))
    for step in (3, 4):
        peer.get(Prepare(1, step, step, ((A, (0,)),), (ME,), 10, by_owners=True))
        assert peer.get(Part(1, step, step, 0, True, True), A)
        peer.get(Apply(1, step, step, 1.0, False))
    assert JoinUpdate(3, 3, 1) in peer.feed(StateLoaded(3, "three"))
    assert StepOptimizer(3, 3, 1.0, False, adopt=1) in peer.feed(UpdateJoined(3, 3, "s"))


def test_member_says_whom_it_waits_for() -> None:
    peer = combined()
    assert peer.reducing.waits_for(0) == "", "until the norm is known"
    peer.get(Update(1, 0, 7, 2.0))
    assert peer.reducing.waits_for(0) == ME
    peer.feed(PartUpdated(0, 7, 1))
    assert peer.reducing.waits_for(0) == A
    peer.get(ITS, A)
    assert peer.reducing.waits_for(0) == ME


# ---------------------------------------------------------------------- the trainer


@dataclass
class Told:
    """What was said about unlike replicas."""

    stages: tuple[int, ...]
    peers: list[str]


def told(swarm: Swarm) -> Told:
    kept = [i.stages for _, i in swarm.told if isinstance(i, KeepUnlike)]
    peers = [str(i.peer) for _, i in swarm.told if isinstance(i, ReportUnlike)]
    return Told(kept[-1] if kept else (), peers)


def asked_to_update(swarm: Swarm) -> set[str]:
    sends = (i for _, i in swarm.told if isinstance(i, Send))
    return {str(send.to) for send in sends if isinstance(send.message, Update)}


def test_stages_where_owners_update_are_asked_to_once_all_are_prepared() -> None:
    swarm = Swarm(by_owners=(1,))
    swarm.run_to(5)
    assert asked_to_update(swarm) == {"s1p0", "s1p1"}
    assert not swarm.fenced()


def test_single_replica_updates_by_itself() -> None:
    swarm = Swarm((1, 1, 1), by_owners=(0, 1, 2))
    swarm.run_to(5)
    assert not asked_to_update(swarm)


def rounds_otherwise(swarm: Swarm) -> Habit:
    """A replica of stage 1 whose own updates are other ones."""

    def habit(message: Message) -> list[Message]:
        made_by_itself = isinstance(message, Applied) and 1 not in swarm.core.run.by_owners
        return [replace(message, digest="other") if made_by_itself else message]

    return habit


def test_replica_that_differs_at_its_first_update_is_unlike_and_no_liar() -> None:
    swarm = Swarm()
    swarm.peers[PeerId("s1p1")].habit = rounds_otherwise(swarm)
    swarm.run_to(8)
    assert told(swarm) == Told((1,), ["s1p1"])
    assert asked_to_update(swarm) == {"s1p0", "s1p1"}
    assert swarm.fenced() == {"s1p1": 1} and swarm.is_ready("s1p1")
    assert swarm.core.run.conduct.faults(PeerId("s1p1")) == 0


def test_replica_that_has_agreed_before_differs_by_its_own_fault() -> None:
    swarm = Swarm()
    swarm.run_to(3)
    swarm.peers[PeerId("s1p1")].habit = bends(Applied, digest="other")
    swarm.run_to(6)
    assert told(swarm) == Told((), [])
    assert swarm.core.run.conduct.faults(PeerId("s1p1")) > 0


def test_whoever_differs_where_owners_update_is_at_fault() -> None:
    swarm = Swarm((2, 3, 2), by_owners=(1,))
    swarm.peers[PeerId("s1p1")].habit = bends(Updated, digest="other")
    swarm.run_to(4)
    assert set(swarm.fenced()) == {"s1p1"}
    assert swarm.core.run.conduct.faults(PeerId("s1p1")) > 0


def test_newcomer_whose_first_update_differs_is_unlike() -> None:
    swarm = Swarm((2, 1, 2))
    swarm.run_to(3)
    swarm.join("s1p1", 1, rounds_otherwise(swarm))
    swarm.run_to(30)
    assert told(swarm) == Told((1,), ["s1p1"])
    assert swarm.fenced() == {"s1p1": 1} and swarm.is_ready("s1p1")


def test_norms_that_differ_in_their_last_bits_are_one() -> None:
    swarm = Swarm()
    swarm.peers[PeerId("s1p1")].habit = bends(Prepared, squared_norm=1.0 + 2**-50)
    swarm.run_to(5)
    assert not swarm.fenced()


def test_member_that_never_updates_is_done_without() -> None:
    swarm = Swarm((2, 3, 2), by_owners=(1,))
    swarm.run_to(3)
    swarm.peers[PeerId("s1p1")].habit = lambda m: [] if isinstance(m, Updated) else [m]
    swarm.run_to(8)
    assert set(swarm.fenced()) == {"s1p1"}


def test_where_owners_update_the_run_begins_without_who_draws_other_weights() -> None:
    """It comes at version 1, though the run was to begin with two."""
    swarm = Swarm(by_owners=(1,))

    def draws_otherwise(message: Message) -> list[Message]:
        is_its_own = isinstance(message, Ready | Beacon) and message.version == 0
        return [replace(message, digest="other") if is_its_own else message]

    swarm.peers[PeerId("s1p1")].habit = draws_otherwise
    swarm.run_to(6)
    assert told(swarm).peers == ["s1p1"] and swarm.is_ready("s1p1")
    assert swarm.core.run.conduct.faults(PeerId("s1p1")) == 0
