"""The ends of microbatches: receipts of those that are trained on, losses of those that evaluate.

Rules:
- A receipt counts once, and only from the owner.
- A microbatch is finished when all stages have accumulated it.
"""

from __future__ import annotations

from swarmrt.ids import MicrobatchId
from swarmrt.messages import Evaluated
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run
from swarmrt.scheduler.trainer.work.failures import Failures
from swarmrt.scheduler.trainer.work.ledger import NOBODY, Ledger


class Finishing:
    def __init__(self, run: Run, failures: Failures) -> None:
        self._run, self._failures = run, failures
        self.has_landed = False  # a microbatch, since what this makes possible was last done

    def receipt(self, member: Member, microbatch: MicrobatchId, now: float) -> None:
        run = self._run
        ledger = run.books.of(microbatch)
        if ledger is None:
            return
        if not ledger.receipt(member.peer, microbatch.index, member.stage):
            self._owns_it_after_all(ledger, microbatch, member.stage)
            return
        member.worked_at = now
        self._failures.worked(member.stage)
        if ledger.has_advanced:
            run.pace.progress_at = now
        run.receipts.came(microbatch, member.stage, member.peer, now)
        if not run.receipts.expect_next(ledger, microbatch, now):
            self.has_landed = True
            run.receipts.finished(microbatch)
            self._landed(microbatch, now)

    def _owns_it_after_all(self, ledger: Ledger, microbatch: MicrobatchId, stage: int) -> None:
        """Have it claimed at once if nobody owns what is accumulated: it was given up, and then its
        gradient came. The attempt that is on its way ends where that was."""
        index = microbatch.index
        if ledger.is_claimed(index) and ledger.owner(index, stage) == NOBODY:
            self._run.dispatch.goes_again(microbatch)

    def evaluated(self, member: Member, message: Evaluated, now: float) -> None:
        run, microbatch = self._run, message.work.microbatch
        is_awaited = microbatch.held_out and run.is_open(microbatch)
        was_sent = message.epoch == run.epoch and run.dispatch.was_sent(message.work)
        is_last = member.stage == run.num_stages - 1 and member.state is Membership.READY
        if not (is_awaited and was_sent and is_last):
            return
        others = len(run.members.ready(member.stage)) - 1
        member.worked_at = now
        if run.evaluation.add(member.peer, message, others):
            run.pace.came(microbatch, now)
            self._landed(microbatch, now)
        elif run.evaluation.awaits(microbatch):
            run.dispatch.goes_again(microbatch)

    def _landed(self, microbatch: MicrobatchId, now: float) -> None:
        self._run.dispatch.landed(microbatch, now)
        self._run.agenda.cancel(("flight", microbatch))
