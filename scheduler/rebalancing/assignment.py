"""The assignment while a plan is made: rates and numbers by stage, and who could go where.

Peers are known by their number in the swarm. Beside the stages there is one more place, `idle`,
for those that serve nothing.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swarmrt.scheduler.rebalancing.swarm import Stage

Entry = tuple[float, int]  # a peer's rate and number


@dataclass(frozen=True, slots=True)
class Move:
    """A peer's way from a place to a stage, after a download or without one."""

    peer: int
    from_place: int
    to_stage: int
    is_download: bool = False


class Assignment:
    """Peers at their places. Moving one costs O(log n) for each stage that it can serve."""

    def __init__(self, stages: Sequence[Stage], speeds: Sequence[float]) -> None:
        self.stages = stages
        self.idle = len(stages)
        self.rates = [0.0] * len(stages)
        self.counts = [0] * len(stages)
        self._speeds = speeds
        self._total = 0.0
        self.fastest = 0.0
        self._place: dict[int, int] = {}
        self._reach: dict[int, tuple[int, ...]] = {}
        self._ways: dict[tuple[int, int], list[Entry]] = {}  # by place and stage, slowest first

    def enter(self, peer: int, place: int, reach: Iterable[int]) -> None:
        """Put a peer at a place; it can serve the stages of `reach` without a download."""
        self._reach[peer] = tuple(sorted(reach))
        self._total += self._speeds[peer]
        self.fastest = max(self.fastest, self._speeds[peer])
        self._arrive(peer, place)

    def speed(self, peer: int) -> float:
        return self._speeds[peer]

    def place(self, peer: int) -> int:
        return self._place[peer]

    def reach(self, peer: int) -> tuple[int, ...]:
        return self._reach[peer]

    def rate_at(self, peer: int, stage: int) -> float:
        return self._speeds[peer] / self.stages[stage].compute

    def slowest(self, place: int, stage: int, least: float) -> int | None:
        """Return the slowest peer of a place that can serve a stage and has this speed at least."""
        ways = self._ways.get((place, stage))
        if not ways:
            return None
        at = bisect.bisect_left(ways, (least, -1))
        return ways[at][1] if at < len(ways) else None

    def nearest(self, place: int, stage: int, speed: float) -> int | None:
        """Return the slowest peer of a place that can serve a stage at this speed, or else the
        fastest that can serve it."""
        ways = self._ways.get((place, stage))
        if not ways:
            return None
        return ways[min(bisect.bisect_left(ways, (speed, -1)), len(ways) - 1)][1]

    def move(self, peer: int, stage: int) -> None:
        """Move a peer to a stage, which it can serve from now on."""
        place = self._place[peer]
        for reached in self._reach[peer]:
            ways = self._ways[place, reached]
            del ways[bisect.bisect_left(ways, (self._speeds[peer], peer))]
        if place != self.idle:
            self.counts[place] -= 1
            self.rates[place] -= self.rate_at(peer, place)
            if not self.counts[place]:
                self.rates[place] = 0.0  # nothing is left of rounding
        if stage not in self._reach[peer] and stage != self.idle:
            self._reach[peer] = tuple(sorted((*self._reach[peer], stage)))
        self._arrive(peer, stage)

    def take_back(self, move: Move) -> None:
        """Undo the newest move of a peer."""
        self.move(move.peer, move.from_place)
        if move.is_download:
            ways = self._ways[move.from_place, move.to_stage]
            del ways[bisect.bisect_left(ways, (self._speeds[move.peer], move.peer))]
            reach = self._reach[move.peer]
            self._reach[move.peer] = tuple(s for s in reach if s != move.to_stage)

    def _arrive(self, peer: int, place: int) -> None:
        self._place[peer] = place
        for reached in self._reach[peer]:
            bisect.insort(self._ways.setdefault((place, reached), []), (self._speeds[peer], peer))
        if place != self.idle:
            self.counts[place] += 1
            self.rates[place] += self.rate_at(peer, place)

    def least(self) -> float:
        """Return the rate of the swarm: that of its poorest stage."""
        return min(self.rates)

    def lacks(self, stage: int) -> bool:
        """Return whether a stage has fewer replicas than it must have."""
        return self.counts[stage] < self.stages[stage].least_replicas

    def poorest(self) -> int:
        """Return the stage that is helped first: one that lacks replicas, else the slowest."""
        return min(range(self.idle), key=self._wealth)

    def poorest_first(self) -> list[int]:
        return sorted(range(self.idle), key=self._wealth)

    def _wealth(self, stage: int) -> tuple[bool, float, int]:
        return not self.lacks(stage), self.rates[stage], self.counts[stage]

    def mean_rate(self) -> float:
        """Return what a peer brings to a stage, in the mean."""
        return self.fair() * len(self.stages) / max(1, len(self._place))

    def fair(self) -> float:
        """Return the rate of the swarm if speeds could be shared out evenly."""
        return self._total / sum(stage.compute for stage in self.stages)

    def worth(self) -> tuple[int, float]:
        """Return how good this is: fewer replicas lacking is better, then a higher rate."""
        lacking = sum(
            max(0, s.least_replicas - n) for s, n in zip(self.stages, self.counts, strict=True)
        )
        return -lacking, self.least()
