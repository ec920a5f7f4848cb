"""The names of those whom a step's microbatches wait for, for people: a stage's only replica may
stand still, and nobody can take its place."""

from __future__ import annotations

from swarmrt.ids import MicrobatchId
from swarmrt.scheduler.trainer.membership.members import Membership
from swarmrt.scheduler.trainer.run import Run

MOST_NAMED = 8


def awaited(run: Run) -> str:
    """Return the owners that are next to accumulate, or the stages of whose work nothing comes."""
    late = [
        f"microbatch {MicrobatchId(step, index)} by {peer} of stage {stage}"
        for step in run.books.steps
        for index in range(run.books[step].microbatches)
        for stage, peer in run.books[step].frontier(index)
    ]
    if late:
        return ", ".join(late[:MOST_NAMED])
    since = run.dispatch.oldest_began_at()
    stages = [
        f"stage {stage}: {', '.join(run.members.ready(stage)[:MOST_NAMED])}"
        for stage in range(run.num_stages)
        if _is_silent(run, stage, since)
    ]
    return f"the work of {'; '.join(stages)}" if stages else "microbatches to be sent"


def _is_silent(run: Run, stage: int, since: float | None) -> bool:
    """Say whether nothing has come of the work of any of its replicas since then."""
    ready = run.members.of_stage(stage, Membership.READY)
    return since is not None and all(member.worked_at < since for member in ready)
