"""The terms of a seat: how it begins to serve in one, and what ends with it."""

from __future__ import annotations

from swarmrt.messages import Ready
from swarmrt.scheduler.instructions import Announce, Instruction, Send
from swarmrt.scheduler.peer.membership.beacons import Beacons
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.reducing import Reducing
from swarmrt.scheduler.peer.work.computing import Computing
from swarmrt.scheduler.peer.work.outputs import Outputs


class Terms:
    def __init__(
        self,
        seat: Seat,
        computing: Computing,
        outputs: Outputs,
        reducing: Reducing,
        beacons: Beacons,
    ) -> None:
        self._seat, self._computing, self._outputs = seat, computing, outputs
        self._reducing, self._beacons = reducing, beacons

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
        """Void all of this step but a gradient that is whole, and that others may apply."""
        self._outputs.clear()
        self._seat.skipping = -1
        void = self._computing.void()
        return void + self._reducing.clear(but_prepared=self._seat.version)

    def begin_anew(self) -> list[Instruction]:
        """End this term, and show the trainer that this peer needs another one."""
        return [*self.end(), self._beacons.beacon()]

    def end(self) -> list[Instruction]:
        """Void the work of this term, and wait to be admitted in another one."""
        seat = self._seat
        seat.state, seat.term = "joining", 0
        return [*self.void_work(), Announce("joining", seat.version)]
