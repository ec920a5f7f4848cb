"""The limits of replicas: what they cannot take now, and how much they can hold at all."""

from __future__ import annotations

import heapq
from collections.abc import Hashable

from swarmrt.ids import SeatId

FEW = 64  # entries of the past that are not worth the sweeping
NEXT = 1  # that waits there, so that the device need not


def most_given(holds: int) -> int:
    """Return how many microbatches a sender gives at a time to who has room for so many; 0 for as
    many as there are, where that is not known."""
    return holds + NEXT if holds > 0 else 0


class Blocked:
    """Seats that get nothing until their time."""

    def __init__(self) -> None:
        self._until: dict[SeatId, float] = {}
        self._heap: list[tuple[float, SeatId]] = []

    def __contains__(self, seat: SeatId) -> bool:
        return seat in self._until

    def block(self, seat: SeatId, until: float) -> None:
        """Block it until then, whatever was said before."""
        self._until[seat] = until
        heapq.heappush(self._heap, (until, seat))
        if len(self._heap) > 2 * len(self._until) + FEW:
            self._heap = [(at, one) for one, at in self._until.items()]
            heapq.heapify(self._heap)

    def forget(self, seat: SeatId) -> None:
        self._until.pop(seat, None)

    def next_over(self, now: float) -> SeatId | None:
        """Return one whose time has come, if there is any. It is blocked no more."""
        while self._heap and self._heap[0][0] <= now:
            until, seat = heapq.heappop(self._heap)
            if self._until.get(seat) == until:
                del self._until[seat]
                return seat
        return None


class Held:
    """Microbatches that were given to seats which can hold only so many."""

    def __init__(self) -> None:
        self._most: dict[SeatId, int] = {}
        self._given: dict[Hashable, SeatId] = {}
        self._count: dict[SeatId, int] = {}

    def __len__(self) -> int:
        return len(self._given)

    def limit(self, seat: SeatId, capacity: int) -> None:
        """Let it hold so many; 0 for as many as there are."""
        if capacity > 0:
            self._most[seat] = capacity
        else:
            self._most.pop(seat, None)

    def is_full(self, seat: SeatId) -> bool:
        return seat in self._most and self._count.get(seat, 0) >= self._most[seat]

    def give(self, what: Hashable, seat: SeatId) -> None:
        """Count it, if the seat has a limit."""
        if seat not in self._most:
            return
        self._given[what] = seat
        self._count[seat] = self._count.get(seat, 0) + 1

    def over(self, what: Hashable) -> SeatId | None:
        """Forget what was given; return who had it, if anybody had."""
        seat = self._given.pop(what, None)
        if seat is not None:
            self._count[seat] -= 1
            if not self._count[seat]:
                del self._count[seat]
        return seat

    def clear(self) -> list[SeatId]:
        """Forget all that was given; return who had any of it."""
        seats = list(self._count)
        self._given.clear()
        self._count.clear()
        return seats
