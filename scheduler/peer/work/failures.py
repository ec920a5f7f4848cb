"""The computations of a seat that fail: others may fare better with what was sent.

A failure ends nobody, as it cannot be told apart here whose fault it is. If a part of a gradient
may be in the accumulators, all work of the term is void.
"""

from __future__ import annotations

from swarmrt.scheduler.events import ComputeFailed
from swarmrt.scheduler.instructions import Instruction
from swarmrt.scheduler.peer.membership.terms import Terms
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.strategy import Versions
from swarmrt.scheduler.peer.work.computing import Computing
from swarmrt.scheduler.peer.work.forwards import Forwards
from swarmrt.scheduler.peer.work.outputs import Outputs
from swarmrt.scheduler.peer.work.recovery import Recovery


class Failures:
    def __init__(
        self,
        seat: Seat,
        versions: Versions,
        computing: Computing,
        outputs: Outputs,
        forwards: Forwards,
        recovery: Recovery,
        terms: Terms,
    ) -> None:
        self._seat, self._accumulators = seat, versions.accumulators
        self._computing, self._outputs = computing, outputs
        self._forwards, self._recovery, self._terms = forwards, recovery, terms

    def failed(self, event: ComputeFailed, now: float) -> list[Instruction]:
        """Let others try, and take nothing for a while from whoever sent it."""
        seat, blame = self._seat, self._forwards.blame
        task, void = self._computing.failed(event.microbatch)
        if task is None:
            return [*void, *self._computing.compute()]
        reason = f"{event.computation} failed: {event.reason}"
        if event.computation == "forward":
            if not seat.is_first:
                blame.failed(task.input_of, now)
        elif task.gradient_of is not None:
            until = blame.failed(task.gradient_of, now)
            self._outputs.next.refused(task.gradient_of, 0.0, until)
        how = (event.computation, reason, event.not_finite)
        told = self._recovery.could_not_be_computed(task, *how)
        if not self._accumulators.is_spoiled:
            return [*told, *self._computing.compute()]
        if seat.is_stepping:
            return told  # and the rest when that is over
        return [*told, *self._terms.begin_anew()]
