"""The best partition of peers into stages, as if everybody held every state.

Equal speeds: each peer to the poorest stage, which is optimal. Otherwise the fastest first (Graham
1969), and then the poorest stage and each other one share out their peers anew, as well as any two
can, until that does not help: once in order of speed, and a number of times in nearly that order.
That is no proof, and `bound` says what nobody can be better than. Very many peers are even after
the first pass.
"""

from __future__ import annotations

import functools
import heapq
import math
import random
from collections.abc import Iterable

import numpy as np

MOST_SHARED_OUT = 400  # peers
MOST_IN_PAIRS = 16  # peers of two stages: all ways to share them out are looked at
STARTS = 24  # orders of the peers that are tried
DISORDER = 0.2  # of the logarithm of a speed, in all orders but the first
NEAR = 0.999  # of the bound: further orders are not tried

Computes = tuple[float, ...]


def best_rate(speeds: Iterable[float], computes: Computes) -> float:
    """Return the rate of the best partition that is found."""
    return _best_rate(tuple(sorted(speeds, reverse=True)), computes)


def bound(speeds: Iterable[float], computes: Computes) -> float:
    """Return a rate that no partition exceeds: that of speeds which can be cut at will."""
    return sum(speeds) / sum(computes)


@functools.lru_cache(maxsize=1 << 16)
def _best_rate(speeds: tuple[float, ...], computes: Computes) -> float:
    if len(speeds) < len(computes):
        return 0.0
    members = _one_by_one(speeds, computes)
    if speeds[0] == speeds[-1] or len(speeds) > MOST_SHARED_OUT:
        return min(sum(m) / c for m, c in zip(members, computes, strict=True))
    best = _evened_out(members, computes)
    rng = random.Random(STARTS)
    for _ in range(STARTS):
        if best >= NEAR * bound(speeds, computes):
            break
        keyed = [(speed * math.exp(rng.gauss(0, DISORDER)), speed) for speed in speeds]
        order = [speed for _, speed in sorted(keyed, reverse=True)]
        best = max(best, _evened_out(_one_by_one(order, computes), computes))
    return best


def _one_by_one(speeds: Iterable[float], computes: Computes) -> list[list[float]]:
    """Put each peer into the stage that is the poorest by then."""
    members: list[list[float]] = [[] for _ in computes]
    heap = [(0.0, stage) for stage in range(len(computes))]
    for speed in speeds:
        rate, stage = heap[0]
        members[stage].append(speed)
        heapq.heapreplace(heap, (rate + speed / computes[stage], stage))
    return members


def _evened_out(members: list[list[float]], computes: Computes) -> float:
    """Share out the peers of the poorest stage and another one anew, until no other helps."""
    stages = range(len(computes))
    while True:
        rates = [sum(members[s]) / computes[s] for s in stages]
        poorest = min(stages, key=lambda s: rates[s])
        for other in sorted(stages, key=lambda s: -rates[s]):
            both = members[poorest] + members[other]
            if other == poorest or len(both) > MOST_IN_PAIRS:
                continue
            one, two, rate = _shared_out(both, computes[poorest], computes[other])
            if rate > rates[poorest] * (1 + 1e-9):
                members[poorest], members[other] = one, two
                break
        else:
            return rates[poorest]


def _shared_out(
    speeds: list[float], one: float, other: float
) -> tuple[list[float], list[float], float]:
    """Return the best two parts, by looking at the sum of every subset, and their lower rate."""
    sums = np.zeros(1)
    for speed in speeds:
        sums = np.concatenate([sums, sums + speed])
    rates = np.minimum(sums / one, (sums[-1] - sums) / other)
    best = int(rates.argmax())
    first = [speed for at, speed in enumerate(speeds) if best >> at & 1]
    second = [speed for at, speed in enumerate(speeds) if not best >> at & 1]
    return first, second, float(rates[best])
