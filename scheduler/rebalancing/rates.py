"""Peers' rates as rebalancing sees them: long means, told only when they have really changed.

Wiring's estimates follow each microbatch. A decision that costs a download must not. A rate is the
work of the newest few hundred microbatches over the seconds that they were computed in; work is
counted in tokens or the like, so that long microbatches are no slow ones. It is told anew when it
has left the last one by more than chance explains. It begins with what a peer says of itself.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

LONG = 300  # microbatches in a mean
FIRST = 60  # that are enough to doubt what a peer says of itself
SURPRISE = 6.0  # standard errors
LEAST_CHANGE = 0.05  # of a rate: less is nobody's concern
MOST_BLOCKS = 64  # that a mean is kept in


@dataclass(slots=True)
class _Block:
    """Microbatches that were reported together."""

    count: int
    work: float
    busy_s: float


@dataclass(slots=True)
class LongMean:
    """The rate of one peer."""

    told: float
    _blocks: deque[_Block] = field(default_factory=deque)
    _count: int = 0

    def record(self, count: int, work: float, busy_s: float) -> None:
        """Note that some microbatches of so much work in all were computed in so many seconds."""
        if count <= 0 or not (0 < work < math.inf and 0 < busy_s < math.inf):
            return
        blocks = self._blocks
        self._count += count
        if blocks and blocks[-1].count < LONG // MOST_BLOCKS:
            last = blocks[-1]
            last.count, last.work, last.busy_s = (
                last.count + count,
                last.work + work,
                last.busy_s + busy_s,
            )
        else:
            blocks.append(_Block(count, work, busy_s))
        while self._count - blocks[0].count >= LONG:
            self._count -= blocks.popleft().count
        self._tell()

    def _tell(self) -> None:
        if self._count < FIRST:
            return
        mean = sum(b.work for b in self._blocks) / sum(b.busy_s for b in self._blocks)
        change = abs(mean - self.told)
        if change > self.told * LEAST_CHANGE and change > self.told * self._surprising(mean):
            self.told = mean

    def _surprising(self, mean: float) -> float:
        """Return the relative change that blocks, as they scatter, do not explain."""
        weights = [block.busy_s for block in self._blocks]
        total = sum(weights)
        if len(weights) < 2:
            return LEAST_CHANGE
        errors = [(b.work - mean * b.busy_s) / (mean * total) for b in self._blocks]
        error = math.sqrt(sum(e * e for e in errors) * len(errors) / (len(errors) - 1))
        return max(LEAST_CHANGE, SURPRISE * error)
