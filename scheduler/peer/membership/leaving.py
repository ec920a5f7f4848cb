"""The leaving of a seat: it drains first, if the trainer lets it.

Rules:
- However long it takes until another can take over, it serves: its owner may insist.
- The trainer lets it drain, and takes that back when nobody else is left of the stage.
- Once nothing of the step is left here, it asks to be let go.
- Who drains and has not wanted to go says that it stays: it is admitted anew, and stands by.
"""

from __future__ import annotations

from swarmrt.messages import Leaving as Leaves
from swarmrt.scheduler.instructions import Announce, Instruction, Send, Stop
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.work.computing import Computing


class Leaving:
    def __init__(self, seat: Seat, computing: Computing) -> None:
        self.is_wanted = False  # it wants to go; it may when it is draining
        self._seat, self._computing = seat, computing
        self._asked_in = (-1, -1)  # epoch and term in which this peer has asked to be let go

    def stop_requested(self, reason: str) -> list[Instruction]:
        """Drain, when the trainer lets it; asked twice, or when not serving, leave."""
        seat = self._seat
        if self.is_wanted or not seat.is_serving:
            return self.stop(reason)
        self.is_wanted = True
        return [self._leaves(idle=False)]

    def stop(self, reason: str) -> list[Instruction]:
        """Leave at once."""
        return [Announce("leaving", self._seat.version), Stop(reason, error=False)]

    @property
    def may_be_told(self) -> bool:
        """Return whether it may be told to drain: when it wants to go, or takes part."""
        return self.is_wanted or self._seat.is_serving

    def drain(self, drains: bool) -> list[Instruction]:
        """Drain by the trainer's word, or serve on: this peer is the last of its stage."""
        seat = self._seat
        if drains == seat.is_draining:
            return []
        seat.is_draining, self._asked_in = drains, (-1, -1)
        return [Announce("leaving" if drains else "serving", seat.version)]

    def begin_term(self) -> None:
        """Forget that it was told to drain in an earlier term, unless it wants to go."""
        self._seat.is_draining = self._seat.is_draining and self.is_wanted

    def ask_when_idle(self) -> list[Instruction]:
        """Ask the trainer to be let go, once nothing of the step is left here."""
        seat = self._seat
        if not self._may_go or self._asked_in == (seat.epoch, seat.term):
            return []
        self._asked_in = (seat.epoch, seat.term)
        return [self._leaves(idle=True)]

    def say_again(self) -> list[Instruction]:
        """Tell the trainer once more what it may have missed."""
        seat = self._seat
        if not (self.is_wanted or seat.is_draining) or not seat.is_serving:
            return []
        return [self._leaves(idle=self._may_go)]

    def _leaves(self, *, idle: bool) -> Send:
        seat = self._seat
        return seat.to_trainer(Leaves(seat.epoch, seat.term, idle, not self.is_wanted))

    @property
    def _may_go(self) -> bool:
        seat = self._seat
        may_go = seat.is_draining and seat.is_serving and not seat.is_stepping
        return may_go and self._computing.is_idle
