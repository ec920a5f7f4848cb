"""PeerCore: every decision of a peer. Events in, instructions out.

It is a door. What concerns the whole process, its link and its trainer, is noted in the `Host`; all
else is the seat's (`seat_core`). A process with several seats has a core for each.
"""

from __future__ import annotations

from swarmrt.ids import PeerId, seat_of
from swarmrt.messages import Message
from swarmrt.scheduler.events import DeadlinePassed, Event, Moved, PeerLost, Received, Started
from swarmrt.scheduler.instructions import Instruction
from swarmrt.scheduler.peer.host import Host
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.seat_core import SeatCore
from swarmrt.scheduler.settings import PeerSettings


class PeerCore:
    def __init__(self, settings: PeerSettings) -> None:
        self.seat = Seat(settings)
        self.host = Host(self.seat.store.gradient_bytes)
        self.seat_core = SeatCore(self.host, self.seat)
        self._rhythm = self.seat_core.rhythm
        self._trainer, self._trainer_gone_s = settings.trainer, settings.trainer_gone_s

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Return what to do about an event. Answers that are no longer waited for give []."""
        done = self._handle(event, now) + self.seat_core.settle()
        return done + self._rhythm.show(self._standing, now)

    def _handle(self, event: Event, now: float) -> list[Instruction]:
        match event:
            case Received(sender, message):
                return self._received(sender, message, now)
            case Moved():
                return self._moved(event, now)
            case PeerLost(peer) if peer == self._trainer:
                self.host.trainer_lost(now)
                return self.seat_core.joining.trainer_lost()
            case PeerLost(peer):
                return self._lost(peer, now)
            case DeadlinePassed("beacon"):
                return self._beat(now)
            case DeadlinePassed("show"):
                return [self.seat_core.beacons.beacon()]
            case Started():
                return self.seat_core.joining.started(event) + self._beat(now)
        return self.seat_core.happened(event, now)

    def _received(self, sender: PeerId, message: Message, now: float) -> list[Instruction]:
        if not self.seat_core.believing.believes(sender, message):
            return []
        if sender == self._trainer:
            self.host.trainer_heard()
        return self.seat_core.heard(sender, message, now)

    def _lost(self, peer: PeerId, now: float) -> list[Instruction]:
        """Go on without any seat of a process that this one deals with."""
        stage, neighbours = self.seat.stage, self.seat_core.neighbours
        names = [peer, *(seat_of(peer, its) for its in (stage - 1, stage, stage + 1))]
        return [what for name in names for what in neighbours.lost(name, now)]

    def _beat(self, now: float) -> list[Instruction]:
        """Beacon, now and again, until the trainer has been gone for too long."""
        alone_s = self.host.alone_s(now)
        if alone_s > self._trainer_gone_s:
            return self.seat_core.leaving.stop(f"the trainer has been gone for {alone_s:.0f} s")
        return [self._rhythm.next(now), *self.seat_core.beacons.beat(now)]

    def _moved(self, event: Moved, now: float) -> list[Instruction]:
        """Take note of what the link carries, and of what this peer awaits over it."""
        is_loading = self.seat.state == "loading"
        awaited = "state" if is_loading else self.seat_core.versions.awaited
        self.host.link.moved(event, awaited, now)
        return []

    @property
    def _standing(self) -> tuple[int, int, str, bool, bool]:
        """Return what the trainer has to know of soon when it changes."""
        seat = self.seat
        return seat.epoch, seat.term, seat.state, seat.is_paused, self.host.is_alone

    @property
    def update(self) -> tuple[int, float]:
        """Return the round and the norm of the update that made this version; -1 and 0 if they are
        not known."""
        return self.seat.made_by

    @property
    def service_s(self) -> float:
        """Return the seconds of one forward and backward; 0 when they are not known."""
        return self.seat_core.computing.pace.service_s

    def validate(self) -> None:
        """Check what always holds between events."""
        self.seat_core.validate()
