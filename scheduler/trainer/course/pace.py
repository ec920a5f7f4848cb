"""The pace of a run: how long its steps and their phases take, and when anything last came forward.

A step that something held up says little of how long steps take: whoever waits for so long next
time is held up for even longer.
"""

from __future__ import annotations

from collections.abc import Hashable

from swarmrt.scheduler.timing.estimate import Estimate, Estimates


class Pace:
    def __init__(self) -> None:
        self.step_time = Estimate()
        self.work_time = Estimate()  # of steps, until all is accumulated
        self.round_time = Estimate()  # of a step's first round, but for its links
        self.apply_time = Estimate()
        self.apply_times = {snapshot: Estimates() for snapshot in (False, True)}  # of each member
        self.load_time = Estimate()  # of newcomers, from their admission
        self.was_held_up = False  # this step, by attempts that were late
        self.step_began_at = 0.0
        self.round_began_at = 0.0  # the newest
        self.applied_at = 0.0
        self.progress_at = 0.0
        self._came: set[Hashable] = set()  # in this step

    def begin_step(self) -> None:
        """Go on to another step, the next to be committed."""
        self.was_held_up = False
        self._came.clear()

    def came(self, what: Hashable, now: float) -> None:
        """Take note of something that leads to the next version. It is progress the first time in a
        step: what is lost and done again, over and over, is none."""
        if what not in self._came:
            self._came.add(what)
            self.progress_at = now

    def step_took(self, seconds: float) -> None:
        """Learn from a step that is over."""
        self._add(self.step_time, seconds)

    def work_took(self, seconds: float) -> None:
        """Learn from a step of which all is accumulated."""
        self._add(self.work_time, seconds)

    def _add(self, time: Estimate, seconds: float) -> None:
        if self.was_held_up and time.samples:
            seconds = min(seconds, 2 * time.mean_s)
        time.add(seconds)
