"""The turns of the seats of one process at its device.

What a seat has handed over is done in its order. Between seats, whatever is no forward goes first,
as it does within a seat: others wait for it; else what was handed over first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

J = TypeVar("J")


class Lanes(Generic[J]):
    """The jobs that wait for a device, in a lane for each seat."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, deque[tuple[bool, int, J]]] = {}  # none is empty
        self._added = 0

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def add(self, seat: Hashable, job: J, *, is_forward: bool) -> None:
        """Hand a seat's next job over."""
        self._added += 1
        self._lanes.setdefault(seat, deque()).append((is_forward, self._added, job))

    def drop(self, seat: Hashable) -> None:
        """Forget what a seat has handed over."""
        self._lanes.pop(seat, None)

    def take(self) -> J:
        """Return the job whose turn it is. Raises ValueError when there is none."""
        seat = min(self._lanes, key=lambda seat: self._lanes[seat][0][:2])
        lane = self._lanes[seat]
        _, _, job = lane.popleft()
        if not lane:
            del self._lanes[seat]
        return job
