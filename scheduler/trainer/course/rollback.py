"""Going back to the last checkpoint, when the state of a stage is lost."""

from __future__ import annotations

from swarmrt.scheduler.instructions import (
    Instruction,
    OfferCheckpoint,
    RaiseEpoch,
    ReportRollback,
    StartDeadline,
)
from swarmrt.scheduler.timing.times import REPORT_S
from swarmrt.scheduler.trainer.evaluation import Evaluation
from swarmrt.scheduler.trainer.membership.joining.admitting import Admitting
from swarmrt.scheduler.trainer.membership.members import Membership
from swarmrt.scheduler.trainer.run import Run


class Rollback:
    def __init__(self, run: Run, admitting: Admitting) -> None:
        self._run, self._admitting = run, admitting

    def consider(self, now: float) -> list[Instruction]:
        """Have all go back in a new epoch, if that is the only way on."""
        run = self._run
        bare = run.members.bare_stages()
        waiting = [m for m in run.members.in_state(Membership.SEEN) if m.beacon is not None]
        if not bare or not set(bare) <= {m.stage for m in waiting} or run.saving.under_way:
            return []
        if any(m.stage in bare and self._admitting.can_go_on(m, now) for m in waiting):
            return []  # it is about to
        reason = f"no replica of stage {', '.join(map(str, bare))} was left"
        return self._go_back(reason, now)

    def _go_back(self, reason: str, now: float) -> list[Instruction]:
        run = self._run
        lost_steps = run.version - run.saving.version
        run.go_back(run.saving.version, run.saving.digests)
        run.saving.offered, run.needed = (run.version or None), (1,) * run.num_stages
        run.agenda.clear()
        run.evaluation = Evaluation(run.version, 0)
        run.begin_books()
        run.dispatch.clear()
        instructions: list[Instruction] = [RaiseEpoch(run.epoch)]
        if run.version:
            instructions.append(OfferCheckpoint(run.version))
        instructions.append(ReportRollback(run.version, lost_steps, reason))
        donors = (run.settings.me,) if run.version else ()
        for member in run.members:
            run.dispatch.wiring.remove(member.peer)
            run.dispatch.window.remove(member.peer)
            if member.beacon is not None:
                run.conduct.pardon(member.peer)  # until a version that may be far by now
                instructions.append(self._admitting.admit(member, donors, now))
        for member in run.members:
            member.most_served = 0
        return [*instructions, StartDeadline("waiting", now + REPORT_S)]
