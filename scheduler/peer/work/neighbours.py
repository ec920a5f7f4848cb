"""The neighbours of a seat: replicas of the stages before and after, by the trainer's word."""

from __future__ import annotations

from swarmrt.ids import SeatId
from swarmrt.messages import Standing
from swarmrt.scheduler.instructions import Instruction
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.work.forwards import Forwards
from swarmrt.scheduler.peer.work.outputs import Outputs
from swarmrt.scheduler.peer.work.recovery import Recovery


class Neighbours:
    def __init__(
        self, seat: Seat, outputs: Outputs, forwards: Forwards, recovery: Recovery
    ) -> None:
        self._seat, self._outputs = seat, outputs
        self._forwards, self._recovery = forwards, recovery

    def standing(self, message: Standing, now: float) -> list[Instruction]:
        """Take the trainer's word on who serves, or does so no more."""
        before, after = self._forwards.before, self._outputs.next
        if not message.serving:
            before.discard(message.peer)
            after.fenced(message.peer)
            return self._recovery.go_on_without(message.peer, now)
        if message.stage == self._seat.stage - 1:
            before.add(message.peer)
        if message.stage == self._seat.stage + 1:
            its = (message.service_s, message.holds)
            after.vouch(message.peer, now, *its, is_near=message.near)
        return [*self._recovery.vouched(message.peer), *self._outputs.rewire(now)]

    def lost(self, peer: SeatId, now: float) -> list[Instruction]:
        """Go on without somebody who cannot be reached any more."""
        self._outputs.next.lost(peer, now)
        return self._recovery.go_on_without(peer, now)

    def forget(self) -> None:
        """Forget what the trainer has said of them, which is of an earlier admission."""
        self._forwards.before.clear()
        self._outputs.next.clear()
        self._forwards.blame.clear()
        self._recovery.forget_early()
