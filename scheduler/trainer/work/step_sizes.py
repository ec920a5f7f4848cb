"""The number of microbatches in each step, where rounds are to come so many seconds apart.

Rules:
- A step's number is fixed when it is opened, so what it consists of is known to all who compute it.
- It follows from the newest step that is committed: from how many microbatches that had, and how
  long it took. Steps that are open meanwhile cannot help it.
- It changes by a factor of 2 at the most, from few in the first step on.
- An interval is at least twice as long as a round takes: else the next one has nothing to do until
  that is over, and steps grow ever shorter.
"""

from __future__ import annotations

MOST_CHANGE = 2.0
ROUNDS_WORTH = 2.0  # of time that an interval has at least


class StepSizes:
    def __init__(self, most: int, every_s: float = 0.0, least: int = 1) -> None:
        """Where `every_s` is 0 all steps have `most`."""
        self._most, self._every_s = most, every_s
        self._least = min(least, most) if every_s else most
        self._next = self._least
        self._fixed: dict[int, int] = {}  # by step

    def of(self, step: int) -> int:
        """Return how many microbatches a step has."""
        return self._fixed.setdefault(step, self._next)

    def took(self, step: int, seconds: float, round_s: float) -> None:
        """Learn from a step that is committed, so many seconds after the one before."""
        number = self.of(step)
        self._fixed = {other: size for other, size in self._fixed.items() if other > step}
        if not self._every_s:
            return
        wanted_s = max(self._every_s, ROUNDS_WORTH * round_s)
        change = wanted_s / seconds if seconds > 0 else MOST_CHANGE
        change = min(MOST_CHANGE, max(1 / MOST_CHANGE, change))
        self._next = max(self._least, min(self._most, round(number * change)))
