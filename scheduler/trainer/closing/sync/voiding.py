"""The end of a round: it has done its work, or it is void."""

from __future__ import annotations

from swarmrt.scheduler.instructions import Instruction, ReportRecovery
from swarmrt.scheduler.trainer.run import Run


def void_round(run: Run, reason: str) -> list[Instruction]:
    """Give a round up. The accumulators are still there: it is repeated, with those that are
    left."""
    run.void()
    stop_waiting(run)
    return [ReportRecovery(run.version, "void round", 1, reason)]


def stop_waiting(run: Run) -> None:
    """Wait for no answers of the round any more."""
    run.agenda.cancel(("ask", None))
    run.agenda.cancel(("round", None))
    run.agenda.cancel(("hand on", None))
