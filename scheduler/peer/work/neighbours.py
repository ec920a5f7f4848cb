"""The neighbours of a seat: replicas of the stages before and after, by the trainer's word."""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import Standing
from swarmrt.scheduler.instructions import Instruction
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.work.forwards import Forwards
from swarmrt.scheduler.peer.work.recovery import Recovery


class Neighbours:
    def __init__(self, seat: Seat, forwards: Forwards, recovery: Recovery) -> None:
        self._seat, self._forwards, self._recovery = seat, forwards, recovery

    def standing(self, message: Standing, now: float) -> list[Instruction]:
        """Take the trainer's word on who serves, or does so no more."""
        forwards = self._forwards
        if not message.serving:
            forwards.before.discard(message.peer)
            forwards.next.fenced(message.peer)
            return self._recovery.go_on_without(message.peer, now)
        if message.stage == self._seat.stage - 1:
            forwards.before.add(message.peer)
        if message.stage == self._seat.stage + 1:
            forwards.next.vouch(message.peer, now)
        return [*self._recovery.vouched(message.peer), *forwards.rewire(now)]

    def lost(self, peer: PeerId, now: float) -> list[Instruction]:
        """Go on without somebody who cannot be reached any more."""
        self._forwards.next.lost(peer, now)
        return self._recovery.go_on_without(peer, now)

    def forget(self) -> None:
        """Forget what the trainer has said of them, which is of an earlier admission."""
        self._forwards.forget_neighbours()
        self._recovery.forget_early()
