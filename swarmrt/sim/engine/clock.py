"""Virtual time: things happen in the order of their time, then of their scheduling."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Do it this much later."""
        heapq.heappush(self._heap, (self.now + max(0.0, seconds), next(self._order), act))

    def at(self, time: float, act: Callable[[], None]) -> None:
        self.after(time - self.now, act)

    def step(self) -> bool:
        """Do the next thing; False when nothing is left to do."""
        if not self._heap:
            return False
        self.now, _, act = heapq.heappop(self._heap)
        act()
        return True
