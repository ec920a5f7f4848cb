"""Virtual time: things happen in the order of their time, then of their scheduling."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

INSTANT_S = 1e-3
MOST_AT_ONCE = 100_000  # things in an instant: more is a deadline that is set again for now


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self._instant, self._done = 0.0, 0  # when it began, and what has been done in it
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do it this much later."""
        heapq.heappush(self._heap, (self.now + max(0.0, seconds), next(self._order), act))

    def at(self, time: float, act: Callable[[], None]) -> None:
        self.after(time - self.now, act)

    def go_on(self, until: float) -> None:
        """Do all that is to be done until then."""
        while self._heap and self._heap[0][0] <= until:
            self.step()
        self.now = max(self.now, until)

    def step(self) -> bool:
        """Do the next thing; False when nothing is left to do.

        Raises AssertionError where time stands still, because things go on for ever at an instant.
        """
        if not self._heap:
            return False
        self.now, _, act = heapq.heappop(self._heap)
        if self.now - self._instant > INSTANT_S:
            self._instant, self._done = self.now, 0
        self._done += 1
        assert self._done <= MOST_AT_ONCE, f"time stands still at {self.now:.3f} s"
        act()
        return True
