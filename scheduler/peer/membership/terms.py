"""The terms of a seat: how it begins to serve in one, and what ends with it."""

from __future__ import annotations

from swarmrt.messages import Ready
from swarmrt.scheduler.instructions import Announce, Instruction, Send
from swarmrt.scheduler.peer.membership.beacons import Beacons
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.strategy import Versions
from swarmrt.scheduler.peer.work.computing import Computing
from swarmrt.scheduler.peer.work.outputs import Outputs


class Terms:
    def __init__(
        self,
        seat: Seat,
        versions: Versions,
        computing: Computing,
        outputs: Outputs,
        beacons: Beacons,
    ) -> None:
        self._seat, self._versions, self._beacons = seat, versions, beacons
        self._computing, self._outputs = computing, outputs

    def serve(self) -> list[Instruction]:
        """Begin to serve: the state is here."""
        seat = self._seat
        seat.state = "serving"
        if seat.is_draining:
            return [self.ready()]
        return [self.ready(), Announce("serving", seat.version)]

    def ready(self) -> Send:
        seat = self._seat
        return seat.to_trainer(Ready(seat.epoch, seat.term, seat.version, seat.digest))

    def void_work(self) -> list[Instruction]:
        """Void all that no version has."""
        self._outputs.clear()
        return [*self._computing.void(), *self._versions.void()]

    def begin_anew(self) -> list[Instruction]:
        """End this term, and show the trainer that this peer needs another one."""
        return [*self.end(), self._beacons.beacon()]

    def end(self) -> list[Instruction]:
        """Void the work of this term, and wait to be admitted in another one."""
        seat = self._seat
        seat.state, seat.term = "joining", 0
        return [*self.void_work(), Announce("joining", seat.version)]
