"""How often a peer beacons: as the trainer says, within bounds, and as it has announced."""

from __future__ import annotations

import math

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import Beacon, Hail, SayEvery
from swarmrt.scheduler.events import DeadlinePassed, PeerLost, Received
from swarmrt.scheduler.instructions import Instruction, RenewEvery, Send, StartDeadline
from swarmrt.scheduler.timing.intervals import MOST_BEACON_S
from swarmrt.scheduler.timing.times import BEACON_S
from tests.scheduler.peer_core import TRAINER, UP, Peer


class Beating(Peer):
    """A peer whose beacons come when they are due."""

    def __init__(self, me: str = "me") -> None:
        self.due: dict[str, float] = {}
        self.beacons: list[tuple[float, Beacon]] = []
        self.renewals: list[float] = []
        super().__init__(me=PeerId(me))
        self.beacons.clear()

    def handle(self, event: Received | DeadlinePassed | PeerLost) -> list[Instruction]:
        return self._take(self.core.handle(event, self.now))

    def feed(self, event: object) -> list[Instruction]:
        self.now += 0.001
        return self._take(self.core.handle(event, self.now))  # type: ignore[arg-type]

    def _take(self, instructions: list[Instruction]) -> list[Instruction]:
        for one in instructions:
            match one:
                case StartDeadline(name, at):
                    self.due[name] = at
                case RenewEvery(every_s):
                    self.renewals.append(every_s)
                case Send(_, Beacon() as beacon):
                    self.beacons.append((self.now, beacon))
        return instructions

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.due and min(self.due.values()) <= until:
            name = min(self.due, key=lambda name: self.due[name])
            self.now = self.due.pop(name)
            self.handle(DeadlinePassed(name))
        self.now = until

    def told(self, every_s: float) -> None:
        self.handle(Received(TRAINER, SayEvery(1, every_s)))

    def gaps(self) -> list[float]:
        times = [at for at, _ in self.beacons]
        return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]


def settled(every_s: float) -> Beating:
    """Return a peer that has been told so, some intervals ago."""
    peer = Beating()
    peer.told(every_s)
    peer.run(4 * every_s)
    peer.beacons.clear()
    return peer


def test_it_beacons_as_often_as_it_is_told_and_says_so() -> None:
    peer = settled(8.0)
    peer.run(80.0)
    assert len(peer.beacons) == 10 and {beacon.every_s for _, beacon in peer.beacons} == {8.0}
    assert peer.renewals == [8.0]


def test_until_it_is_told_nothing_is_said_of_intervals() -> None:
    peer = Beating()
    peer.run(5.0)
    assert len(peer.beacons) == 10 and {beacon.every_s for _, beacon in peer.beacons} == {0.0}


@pytest.mark.parametrize(
    ("told_s", "kept_s"), [(0.0, BEACON_S), (0.01, BEACON_S), (1e5, MOST_BEACON_S)]
)
def test_a_trainer_cannot_make_it_flood_nor_fall_silent(told_s: float, kept_s: float) -> None:
    peer = settled(4.0)
    peer.told(told_s)
    peer.run(2 * kept_s)
    peer.beacons.clear()
    peer.run(10 * kept_s)
    assert 9 <= len(peer.beacons) <= 11


@pytest.mark.parametrize("told_s", [math.nan, math.inf, -1.0])
def test_what_is_no_time_is_not_obeyed(told_s: float) -> None:
    peer = settled(4.0)
    peer.told(told_s)
    peer.run(40.0)
    assert len(peer.beacons) == 10


def test_nobody_but_the_trainer_of_now_tells_it() -> None:
    peer = settled(4.0)
    peer.handle(Received(UP, SayEvery(1, 20.0)))
    peer.handle(Received(TRAINER, SayEvery(0, 20.0)))
    peer.run(40.0)
    assert len(peer.beacons) == 10


@pytest.mark.parametrize("me", ["me", "another", "a third one"])
def test_what_a_beacon_announces_is_kept_when_the_interval_changes(me: str) -> None:
    peer = Beating(me)
    peer.run(2.0)
    for every_s in (0.7, 3.0, 50.0, 20.0, 1.0, 0.5, 30.0):
        peer.told(every_s)
        peer.run(3 * every_s)
    for gap, (_, beacon) in zip(peer.gaps(), peer.beacons, strict=False):
        assert gap <= (beacon.every_s or BEACON_S) + 1e-6


def test_a_shorter_interval_begins_at_once() -> None:
    peer = settled(50.0)
    peer.told(1.0)
    peer.run(2.5)
    assert len(peer.beacons) >= 2


def test_what_has_changed_is_shown_soon_and_the_rhythm_goes_on() -> None:
    """The links of thousands break at the same time, and come again: the peers do not beacon
    in one second from then on."""
    peer = settled(50.0)
    due_at = peer.due["beacon"]
    peer.run(1.0)
    peer.handle(PeerLost(TRAINER, "cut"))
    peer.run(1.0)
    assert [beacon.state for _, beacon in peer.beacons] == ["joining"]
    assert peer.due == {"beacon": due_at}
    peer.handle(Received(TRAINER, Hail(2)))
    peer.run(1.0)
    assert {beacon.epoch for _, beacon in peer.beacons[1:]} == {2} and len(peer.beacons) == 3
