"""Going back to the last checkpoint, when the state of a stage is lost.

Rules:
- While somebody of the stage has its state, or has prepared it, nobody goes back: it is about to go
  on, or will when its owner lets it. Unless it does not: whoever has not gone on for so long is
  likely to take as long again. So it is waited for no longer than the steps took that are lost by
  going back, where others could serve the stage, or for twice as long as an update takes.
"""

from __future__ import annotations

from swarmrt.scheduler.instructions import (
    Instruction,
    OfferCheckpoint,
    RaiseEpoch,
    ReportRollback,
    StartDeadline,
)
from swarmrt.scheduler.timing.times import FIRST_UPDATE_S, REPORT_S
from swarmrt.scheduler.trainer.evaluation import Evaluation
from swarmrt.scheduler.trainer.membership.joining.admitting import Admitting
from swarmrt.scheduler.trainer.membership.members import Member
from swarmrt.scheduler.trainer.run import Run

LOOKS = 2  # intervals at the most between two looks: one for each beacon of who could serve


class Rollback:
    def __init__(self, run: Run, admitting: Admitting) -> None:
        self._run, self._admitting = run, admitting
        self._waited_s = self._looked_at = 0.0  # for who is about to go on, where others could

    def consider(self, now: float) -> list[Instruction]:
        """Have all go back in a new epoch, if that is the only way on, or the shorter one."""
        run = self._run
        bare = set(run.members.bare_stages())
        waiting = run.members.waiting()
        if not bare or not bare <= {m.stage for m in waiting} or run.saving.under_way:
            self._waited_s = 0.0
            return []
        if self._is_awaited(bare, waiting, now):
            return []
        reason = f"no replica of stage {', '.join(map(str, sorted(bare)))} was left"
        return self._go_back(reason, now)

    def _is_awaited(self, bare: set[int], waiting: list[Member], now: float) -> bool:
        """Return whether somebody is about to go on, and is worth waiting for."""
        run, pace = self._run, self._run.pace
        able = [*waiting, *run.members.paused()]
        about_to = {m.stage for m in able if self._admitting.can_go_on(m, now)}
        others = {m.stage for m in waiting if not self._admitting.can_go_on(m, now)}
        if bare.isdisjoint(about_to) or not bare <= others:
            self._waited_s = 0.0
            return not bare.isdisjoint(about_to)
        looks_s = LOOKS * max(m.health.every_s for m in waiting)
        self._waited_s += min(now - self._looked_at, looks_s)  # this process may have stood still
        self._looked_at = now
        lost_s = (run.version - run.saving.version) * pace.step_time.mean_s
        return self._waited_s <= max(lost_s, pace.apply_time.patience_s(FIRST_UPDATE_S, 1))

    def _go_back(self, reason: str, now: float) -> list[Instruction]:
        run = self._run
        lost_steps = run.version - run.saving.version
        self._waited_s = 0.0
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
            if member.beacon is not None and not member.is_paused:
                run.conduct.pardon(member.peer)  # until a version that may be far by now
                instructions.append(self._admitting.admit(member, donors, now))
        for member in run.members:
            member.most_served = 0
        return [*instructions, StartDeadline("waiting", now + REPORT_S)]
