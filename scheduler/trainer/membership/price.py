"""The price of going on without a member: its work of the open steps is done again by others.

Whoever has been silent for so long is likely to be silent for as long again. So waiting is dearer
than doing its work again once it has been waited for longer than that would take.
"""

from __future__ import annotations

from swarmrt.scheduler.trainer.membership.members import Member
from swarmrt.scheduler.trainer.run import Run

WORDS = 3  # one after the other in an answer: a claim, a receipt, and one that was lost


def is_too_dear(run: Run, member: Member, waited_s: float) -> bool:
    """Return whether waiting for a member that is still heard has cost more than going on without
    it: nobody is done without sooner than for silence, nor for what this process does not hear."""
    price_s = max(2 * member.health.patience_s, redo_s(run, member)) + WORDS * run.own_link.delay_s
    return waited_s > price_s and not run.own_link.hears_nobody


def redo_s(run: Run, member: Member) -> float:
    """Return the seconds that the others of its stage need for what it has of the open steps.

    It follows from how long steps take, which the trainer measures, and not from what peers say.
    """
    replicas = len(run.members.ready(member.stage))
    share = run.books.num_owned(member.peer) / run.ledger.microbatches
    return run.pace.step_time.mean_s * share * replicas / max(1, replicas - 1)
