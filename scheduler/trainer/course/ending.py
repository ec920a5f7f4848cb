"""The end of a run: its last checkpoint, a stop that was asked for, or nothing that goes on.

Rules:
- The last version is applied, evaluated and saved before the run is over. A stop that is asked for
  once makes the step under way the last; twice, it ends at once.
- Nothing is waited for without end, or without a word of what it is. What comes forward counts, and
  not what peers say that they do. Before the run is given up, it is tried without whoever it waits
  for; where that is a stage's only replica, with whoever else has come, from the last checkpoint.
"""

from __future__ import annotations

from swarmrt.ids import SeatId
from swarmrt.scheduler.instructions import (
    Instruction,
    ReportCheckpointFailed,
    ReportStall,
    StartDeadline,
)
from swarmrt.scheduler.timing.times import SAY_S, STALL_S
from swarmrt.scheduler.trainer.closing.strategy import Closing
from swarmrt.scheduler.trainer.course.course import RunPhase
from swarmrt.scheduler.trainer.membership.awaiting import awaited as awaited_work
from swarmrt.scheduler.trainer.membership.members import Membership
from swarmrt.scheduler.trainer.run import Run
from swarmrt.scheduler.trainer.work.microbatches.working import Working

SAVES = 30  # tries to write the last checkpoint, over seven minutes, for somebody to make room
SAY_STEPS = 4  # without any progress, where that is longer
STALL_STEPS = 20  # and before it is tried without whoever is waited for
LAST_STALLS = 4  # times as long, and the run is given up


class EndOfRun:
    def __init__(self, run: Run, working: Working, closing: Closing) -> None:
        self._run, self._working, self._closing = run, working, closing
        self._watches_at = self._says_at = self._tries_at = 0.0  # next

    def start(self, now: float) -> StartDeadline:
        """Watch from now on."""
        self._run.pace.progress_at, self._watches_at = now, now + SAY_S
        return StartDeadline("stall", self._watches_at)

    def finish(self) -> list[Instruction]:
        """The last version is applied, evaluated and saved."""
        run = self._run
        if run.commit is not None:
            return []
        if run.saving.version != run.version:
            return self._save()
        return run.leave("the run was stopped" if run.is_stopping else "the run is done")

    def _save(self) -> list[Instruction]:
        """The version that is here now, from whoever has it."""
        run = self._run
        stages = range(run.num_stages)
        replicas = [run.members.of_stage(stage, Membership.READY) for stage in stages]
        if run.saving.rests or run.saving.under_way or not all(replicas):
            return []
        said = (members[0].says_of(run.version) for members in replicas)
        digests = tuple(known or its for known, its in zip(run.digests, said, strict=True))
        if not all(digests):
            return []  # who holds it has yet to say what it holds
        donors = tuple(tuple(member.peer for member in members) for members in replicas)
        return [run.saving.begin(run.version, run.epoch, donors, digests)]

    def checkpoint_failed(self, version: int, reason: str, now: float) -> list[Instruction]:
        """The last one is what the run was for; an earlier one is made up for by the next."""
        run = self._run
        again = run.saving.failed(version, now)
        if again is None:
            return []
        if version == run.last_version and run.saving.failures >= SAVES:
            return [run.give_up(f"the checkpoint of step {version} failed: {reason}")]
        return [ReportCheckpointFailed(version, reason), again]

    def stop_requested(self, reason: str) -> list[Instruction]:
        """Commit this step, save it and leave; asked twice, or with nothing to commit, leave at
        once."""
        run = self._run
        nothing = not run.has_begun or bool(run.members.bare_stages())
        if run.is_stopping or nothing:
            return run.leave(reason)
        run.stop()
        if run.version < run.last_version:
            self._working.feeding.stop_after_this_step()
        else:
            run.evaluation.drop()
            run.dispatch.clear()
        return []

    def watch(self, now: float) -> list[Instruction]:
        """Report a stall: nothing may wait for ever without saying why."""
        run = self._run
        step_s = run.pace.step_time.mean_s if run.pace.step_time.samples else 0.0
        say_s, stall_s = max(SAY_S, SAY_STEPS * step_s), max(STALL_S, STALL_STEPS * step_s)
        waits = (
            not run.has_begun or run.phase is RunPhase.WAITING or bool(run.members.bare_stages())
        )
        again = StartDeadline("stall", now + say_s / 4)
        slept_s = max(0.0, now - self._watches_at)  # this process stood still
        run.pace.progress_at = max(run.pace.progress_at, min(now, run.pace.progress_at + slept_s))
        self._watches_at = again.at
        if waits:
            run.pace.progress_at = now
        quiet_s = now - run.pace.progress_at
        if quiet_s < say_s:
            return [again]
        awaited = self._closing.awaited() or awaited_work(run)
        if quiet_s >= LAST_STALLS * stall_s:
            return [run.give_up(f"no progress for {quiet_s:.0f} s; waiting for {awaited}")]
        if quiet_s >= stall_s and now >= self._tries_at:
            self._tries_at = now + stall_s / 4
            self._try_without(quiet_s, now)
        if now < self._says_at:
            return [again]
        self._says_at = now + say_s
        return [ReportStall(quiet_s, awaited), again]

    def _try_without(self, quiet_s: float, now: float) -> None:
        """Do without whoever is waited for, where there are others."""
        suspects = self._closing.suspects() or self._working.lateness.suspects()
        suspects = suspects or self._lone_ones_beside_newcomers(now - quiet_s / 2)
        for peer in suspects:
            reason = f"nothing has come forward for {quiet_s:.0f} s, and it is waited for"
            self._run.charge(peer, reason, "fault" if len(suspects) == 1 else "cut", quiet_s)

    def _lone_ones_beside_newcomers(self, since: float) -> list[SeatId]:
        """Return who alone serves a stage and does not get on, where another one has come: without
        it all go back to the last checkpoint, from which that one can serve."""
        run = self._run
        under_way = run.round or run.commit
        ready = run.members.in_state(Membership.READY)
        if under_way is not None:
            late = under_way.missing()
        else:
            late = [member.peer for member in ready if member.health.is_stuck_since(since)]
        come = {member.stage for member in run.members.waiting()}
        lone = [m for m in ready if m.stage in come and not run.has_others(m.peer, m.stage)]
        return [member.peer for member in lone if member.peer in late]
