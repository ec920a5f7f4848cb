"""What a peer that serves nothing waits for: its owner is told, and it asks ever more slowly."""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import Admit, Beacon, Hail, Message
from swarmrt.scheduler.events import (
    DeadlinePassed,
    Event,
    PeerLost,
    Received,
    Started,
    StateLoaded,
    StateUnavailable,
)
from swarmrt.scheduler.instructions import Instruction, LoadState, ReportWaitsFor, Send
from swarmrt.scheduler.peer.core import PeerCore
from swarmrt.scheduler.settings import PeerSettings
from swarmrt.sim.engine.clock import Clock
from swarmrt.sim.engine.process import Process
from tests.scheduler.peer_core import ME, TRAINER

SETTINGS = PeerSettings(
    me=ME, trainer=TRAINER, stage=1, num_stages=3, seed=0, queue_s=1.0, gradient_bytes=1000,
    retain_bytes=1 << 20, record_ttl_s=15.0,
)  # fmt: skip


class Peer:
    """A core with a clock; `said` is what its owner is told, and when."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.process = Process(SETTINGS, self.clock, self._act, 0.0, 1.0)
        self.said: list[tuple[int, str, int]] = []
        self.loads: list[float] = []
        self.beacons: list[str] = []

    def _act(self, instruction: Instruction) -> None:
        match instruction:
            case ReportWaitsFor(what, seconds):
                self.said.append((round(self.clock.now), what, round(seconds)))
            case LoadState():
                self.loads.append(self.clock.now)
            case Send(_, Beacon(state=state)):
                self.beacons.append(state)

    def feed(self, event: Event) -> None:
        self.process.feed(event)

    def get(self, message: Message) -> None:
        self.feed(Received(TRAINER, message))

    def run(self, seconds: float) -> None:
        until = self.clock.now + seconds
        self.clock.after(seconds, lambda: None)
        while self.clock.now < until and self.clock.step():
            pass


def started() -> Peer:

    peer = Peer()
    peer.feed(Started(0, "initial"))
    return peer


def test_owner_is_told_each_half_minute_what_is_waited_for() -> None:
    peer = started()
    peer.run(70.0)
    assert [(what, seconds) for _, what, seconds in peer.said] == [("hail", 30), ("hail", 60)]
    peer.get(Hail(1))
    peer.run(35.0)
    assert peer.said[-1][1:] == ("admission", 30)
    peer.get(Admit(1, 1, 4, "d", 3, 1.0, (PeerId("donor"),)))
    peer.run(35.0)
    assert peer.said[-1][1:] == ("state", 30)
    peer.feed(StateLoaded(4, "d"))
    before = len(peer.said)
    peer.run(100.0)
    assert len(peer.said) == before, "it serves"
    peer.feed(PeerLost(TRAINER, "killed"))
    peer.run(35.0)
    assert peer.said[-1][1:] == ("trainer", 30)


def test_state_that_cannot_be_loaded_is_asked_for_ever_more_slowly() -> None:
    """At once the first time, as its donor may just have gone: after an hour, each half minute."""
    peer, term = started(), 0
    peer.get(Hail(1))
    while peer.clock.now < 3600.0:
        term += 1
        peer.beacons.clear()
        peer.get(Admit(1, term, 4, "d", 3, 1.0, (PeerId("donor"),)))
        peer.feed(StateUnavailable(4, "it does not fit"))
        while peer.beacons[-1:] != ["joining"]:  # the trainer admits it as soon as it says so
            peer.run(0.25)
    gaps = [later - earlier for earlier, later in zip(peer.loads, peer.loads[1:], strict=False)]
    assert gaps[0] <= 0.5 and gaps == sorted(gaps) and 30.0 <= gaps[-1] <= 33.0
    assert len(peer.loads) < 130
    peer.get(Admit(1, term + 1, 4, "d", 3, 1.0, (PeerId("donor"),)))
    peer.feed(StateLoaded(4, "d"))
    assert isinstance(peer.process.core, PeerCore) and peer.process.core.seat.is_serving


def test_admission_while_it_rests_is_taken_at_once() -> None:
    peer = started()
    peer.get(Hail(1))
    for term in (1, 2, 3):
        peer.get(Admit(1, term, 4, "d", 3, 1.0, (PeerId("donor"),)))
        peer.feed(StateUnavailable(4, "it does not fit"))
    peer.get(Admit(1, 4, 4, "d", 3, 1.0, (PeerId("another"),)))
    assert len(peer.loads) == 4
    peer.feed(DeadlinePassed("load"))
    peer.feed(StateLoaded(4, "d"))
    assert isinstance(peer.process.core, PeerCore) and peer.process.core.seat.is_serving
