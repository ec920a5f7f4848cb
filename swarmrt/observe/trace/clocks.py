"""The offsets between the clocks of a run's processes, from the messages between them.

The difference between the clocks is bounded by the fastest message in either direction: none
arrives before it left. The middle of the bounds is the estimate, which is right if the fastest
messages took equally long both ways (Mills, Internet Time Synchronization: the Network Time
Protocol, 1991). Processes that never talked are compared over others, along the path whose bounds
add up to least. Clocks are taken to run equally fast.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

TICK_S = 0.001  # the resolution of `now`: a message may seem so much faster than it was


@dataclass(frozen=True, order=True)
class Offset:
    """The time that a clock shows more than the trainer's at the same instant, and how sure that
    is."""

    seconds: float
    bound_s: float  # how far off it can be; infinite when messages went one way only, or none did

    def __add__(self, other: Offset) -> Offset:
        return Offset(self.seconds + other.seconds, self.bound_s + other.bound_s)


def between(there: float | None, back: float | None) -> Offset:
    """The offset of B from A, by the least differences of messages from A to B and from B to A.

    Zero if it is within the bounds: the processes of one machine have one clock.
    """
    if there is None or back is None:
        return Offset(there if there is not None else -(back or 0.0), math.inf)
    low, high = -back - TICK_S, there + TICK_S
    seconds = 0.0 if low <= 0.0 <= high else (low + high) / 2
    return Offset(seconds, max(abs(high - seconds), abs(seconds - low)))


def align(
    shortest: Mapping[tuple[int, int], float], number: int, root: int = 0
) -> list[Offset | None]:
    """Offsets from the clock of process `root`; None for what no message connects with it.

    `shortest` has the least (time it came - time it left) by sender and receiver.
    """
    neighbours: dict[int, set[int]] = defaultdict(set)
    for one, other in shortest:
        if one != other:
            neighbours[one].add(other)
            neighbours[other].add(one)
    offsets: list[Offset | None] = [None] * number
    paths = [(0, 0.0, root, Offset(0.0, 0.0))]  # one-way links, sum of the bounds of the others
    while paths:
        one_way, bound_s, here, offset = heapq.heappop(paths)
        if offsets[here] is not None:
            continue
        offsets[here] = offset
        for there in neighbours[here]:
            if offsets[there] is None:
                link = between(shortest.get((here, there)), shortest.get((there, here)))
                sure = math.isfinite(link.bound_s)
                cost = (one_way + (not sure), bound_s + (link.bound_s if sure else 0.0))
                heapq.heappush(paths, (*cost, there, offset + link))
    return offsets
