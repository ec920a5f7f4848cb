"""The best partition of peers into stages, as if everybody held every state.

Equal speeds: each peer to the poorest stage, which is optimal. Otherwise longest processing time
first (Graham 1969), and then chains of moves and swaps until none helps: no proof, but what no
policy here has been seen to beat. Chains are left out among very many, where they gain nothing.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Iterable

from swarmrt.scheduler.rebalancing.assignment import Assignment
from swarmrt.scheduler.rebalancing.raising import raise_poorest
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.swarm import Stage

MOST_IN_CHAINS = 400
FREE = Settings(hysteresis=0.0, move_cost=0.0, longest_chain=4)


def best_rate(speeds: Iterable[float], computes: tuple[float, ...]) -> float:
    """Return the rate of the best partition that is found."""
    return _best_rate(tuple(sorted(speeds, reverse=True)), computes)


@functools.lru_cache(maxsize=1 << 16)
def _best_rate(speeds: tuple[float, ...], computes: tuple[float, ...]) -> float:
    if len(speeds) < len(computes):
        return 0.0
    rates, places = _longest_first(speeds, computes)
    if speeds[0] == speeds[-1] or len(speeds) > MOST_IN_CHAINS:
        return min(rates)
    assignment = Assignment([Stage(compute=c) for c in computes], speeds)
    for peer, place in enumerate(places):
        assignment.enter(peer, place, range(len(computes)))
    raise_poorest(assignment, FREE)
    return assignment.least()


def _longest_first(
    speeds: tuple[float, ...], computes: tuple[float, ...]
) -> tuple[list[float], list[int]]:
    rates = [0.0] * len(computes)
    heap = [(0.0, stage) for stage in range(len(computes))]
    places = []
    for speed in speeds:
        _, stage = heap[0]
        rates[stage] += speed / computes[stage]
        heapq.heapreplace(heap, (rates[stage], stage))
        places.append(stage)
    return rates, places
