"""The deadlines of a core: many keys, of which the world only has to know the earliest time."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

from swarmrt.scheduler.instructions import StartDeadline

K = TypeVar("K", bound=Hashable)
TOLERANCE_S = 1e-3  # a world's clock may wake a little early


class Agenda(Generic[K]):
    """Set keys to times; ask which are due. O(log n) each. Equal times keep their order."""

    def __init__(self, name: str) -> None:
        self.name = name  # of the world's one deadline
        self._newest: dict[K, tuple[float, int, K]] = {}  # of the key's entries in the heap
        self._heap: list[tuple[float, int, K]] = []
        self._order = 0
        self._armed_at: float | None = None
        self._may_be_late = False  # the world's deadline: something was set before it since

    def set(self, key: K, at: float) -> None:
        """Set the time of a key; it replaces the earlier one."""
        self._order += 1
        entry = self._newest[key] = (at, self._order, key)
        heapq.heappush(self._heap, entry)
        if self._armed_at is None or at < self._armed_at:
            self._may_be_late = True

    def cancel(self, key: K) -> None:
        self._newest.pop(key, None)

    def clear(self) -> None:
        self._newest.clear()

    def __contains__(self, key: K) -> bool:
        return key in self._newest

    def due(self, now: float) -> list[K]:
        """Keys whose time has come. They are not set any more."""
        self._armed_at, self._may_be_late = None, True
        keys: list[K] = []
        while (entry := self._earliest()) is not None and entry[0] <= now + TOLERANCE_S:
            heapq.heappop(self._heap)
            del self._newest[entry[2]]
            keys.append(entry[2])
        return keys

    def arm(self) -> list[StartDeadline]:
        """Return the world's deadline, after each event, when the earliest time has come
        forward."""
        if not self._may_be_late:
            return []
        self._may_be_late = False
        entry = self._earliest()
        if entry is None or (self._armed_at is not None and self._armed_at <= entry[0]):
            return []
        self._armed_at = entry[0]
        return [StartDeadline(self.name, entry[0])]

    def _earliest(self) -> tuple[float, int, K] | None:
        heap = self._heap
        while heap:
            entry = heap[0]
            if self._newest.get(entry[2]) is entry:
                return entry
            heapq.heappop(heap)
        return None
