"""Holding commits for newcomers, a little.

Rules:
- One that is behind, and could catch up, gets a little time: a commit is held for no longer than a
  gradient takes over its link, nor than a step takes.
- Commits are held for one newcomer a few times at the most, and not once it has come nearer; for a
  spare they are not held at all.
"""

from __future__ import annotations

from swarmrt.scheduler.timing.agenda import TOLERANCE_S
from swarmrt.scheduler.trainer.closing import worth
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run

FAR_BEHIND = 3  # versions, while it loads: what it misses takes more of its link than the state
MOST_HOLDS = 8  # of commits, for one newcomer


class Holding:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._hold: tuple[tuple[int, int], float] | None = None  # the newest: of what, until when

    def is_held(self, now: float) -> bool:
        """Return whether this complete step waits a little for newcomers to come nearer."""
        run = self._run
        if self._hold is None or self._hold[0] != run.current:
            waits_s = [(m, self._hold_s(m)) for m in run.members.in_state(Membership.ADMITTED)]
            held_s = max((seconds for _, seconds in waits_s), default=0.0)
            self._hold = run.current, now + held_s
            run.pace.work_took(now - run.pace.step_began_at)
            for newcomer, seconds in waits_s:
                newcomer.times_held_for += seconds > 0
            if held_s:
                run.agenda.set(("hold", None), now + held_s)
        if now + TOLERANCE_S >= self._hold[1]:
            return False
        return any(self._hold_s(m) for m in run.members.in_state(Membership.ADMITTED))

    def _hold_s(self, newcomer: Member) -> float:
        """Return how long this step may be held for a newcomer."""
        run = self._run
        behind, most = worth.behind(run, newcomer), worth.most_missed(run, newcomer)
        step_s, gradient_s = run.pace.step_time.mean_s, worth.following_s(run, newcomer)
        if newcomer.times_held_for > MOST_HOLDS or not behind < most or not step_s:
            return 0.0
        if newcomer.is_spare:
            return 0.0
        if worth.is_alone(run, newcomer) or worth.is_link_too_slow(run, newcomer):
            return 0.0
        if gradient_s:
            is_loaded = newcomer.beacon is not None and newcomer.beacon.state == "serving"
            return gradient_s if behind >= (1 if is_loaded else min(FAR_BEHIND, most - 1)) else 0.0
        return step_s if behind == most - 1 else 0.0
