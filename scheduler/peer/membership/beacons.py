"""The beacons of a seat: they tell the trainer all that it may have missed."""

from __future__ import annotations

from swarmrt.ids import SeatId
from swarmrt.messages import Beacon, PeerState
from swarmrt.scheduler.instructions import Instruction, Send, WaitsFor
from swarmrt.scheduler.peer.host import Host
from swarmrt.scheduler.peer.membership.leaving import Leaving
from swarmrt.scheduler.peer.membership.rhythm import Rhythm
from swarmrt.scheduler.peer.membership.waiting import Waiting
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.strategy import Versions
from swarmrt.scheduler.peer.work.computing import Computing


class Beacons:
    def __init__(
        self,
        host: Host,
        seat: Seat,
        versions: Versions,
        computing: Computing,
        leaving: Leaving,
        rhythm: Rhythm,
    ) -> None:
        self._host, self._seat, self._versions = host, seat, versions
        self._computing, self._leaving, self._rhythm = computing, leaving, rhythm
        self._waiting = Waiting()

    def beat(self, now: float) -> list[Instruction]:
        """Say how this seat is, to the trainer and, while it serves nothing, to its owner."""
        waits = self._waiting.look(self._awaited(), now)
        return [self.beacon(), *waits, *self._leaving.say_again()]

    def _awaited(self) -> WaitsFor | None:
        """Return what this peer waits for before it serves, if it does not."""
        seat = self._seat
        if seat.is_paused:
            return None
        if self._host.is_alone:
            return "trainer"
        if seat.state == "loading":
            return "state" if seat.load_rests_in is None else "next try"
        if seat.state == "joining":
            return "hail" if seat.epoch < 0 else "admission"
        return None

    def beacon(self) -> Send:
        seat, computing, link = self._seat, self._computing, self._host.link
        every_s = self._rhythm.told_to_others
        queued = 0 if seat.is_stepping else computing.queue.computable(self._versions.newest)
        state: PeerState = "leaving" if self._leaving.is_wanted and seat.is_serving else seat.state
        return seat.to_trainer(
            Beacon(
                seat.epoch,
                seat.term,
                seat.stage,
                state,
                seat.version,
                seat.digest,
                self._versions.prepared,
                *seat.made_by,
                queued,
                computing.done,
                computing.pace.service_s,
                self._versions.waits_for if seat.is_serving else SeatId(""),
                link.gradient_bytes,
                link.moved_bytes,
                link.gradient_s,
                seat.settings.is_spare,
                seat.settings.island,
                seat.is_paused,
                seat.settings.holds,
                *every_s,
            )
        )
