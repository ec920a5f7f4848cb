"""Made-up churn: who comes and goes, drawn from a seed.

All begin with as many peers as there are to be in the mean. Names are never used again.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator

from swarmrt.sim.fluid.trace import Change

DAY_S = 86_400.0
TAIL = 1.5  # exponent of the heavy-tailed lives: their variance is infinite

Lives = Callable[[], float]


def poisson(peers: int, life_s: float, length_s: float, seed: int) -> tuple[Change, ...]:
    """Return joins at a constant rate, and lives that are exponential."""
    rng = random.Random(f"{seed}/poisson")
    return _churn(
        peers,
        lambda: rng.expovariate(1 / life_s),
        _steady(rng, peers / life_s, length_s),
        length_s,
    )


def heavy_tailed(peers: int, life_s: float, length_s: float, seed: int) -> tuple[Change, ...]:
    """Return joins at a constant rate, and lives of which most are short and few very long."""
    rng = random.Random(f"{seed}/heavy")
    shortest = life_s * (TAIL - 1) / TAIL
    return _churn(
        peers,
        lambda: shortest * rng.paretovariate(TAIL),
        _steady(rng, peers / life_s, length_s),
        length_s,
    )


def diurnal(
    peers: int, life_s: float, length_s: float, seed: int, swing: float = 0.8
) -> tuple[Change, ...]:
    """Return joins whose rate rises and falls once a day, by a `swing` of the mean."""
    rng = random.Random(f"{seed}/diurnal")
    highest = peers / life_s * (1 + swing)
    times = (
        at
        for at in _steady(rng, highest, length_s)
        if rng.random() * (1 + swing) < 1 + swing * math.sin(2 * math.pi * at / DAY_S)
    )
    return _churn(peers, lambda: rng.expovariate(1 / life_s), times, length_s)


def mass_events(
    peers: int,
    life_s: float,
    length_s: float,
    seed: int,
    every_s: float = 7200.0,
    part: float = 0.3,
) -> tuple[Change, ...]:
    """Return Poisson churn in which, again and again, a part of all leave at once; as many come
    back within ten minutes."""
    rng = random.Random(f"{seed}/mass")
    changes = list(poisson(peers, life_s, length_s, seed))
    for number, at in enumerate(_steady(rng, 1 / every_s, length_s)):
        present = [change.name for change in _present(changes, at)]
        gone = rng.sample(present, int(part * len(present)))
        changes = [c for c in changes if c.joins or c.at_s <= at or c.name not in gone]
        changes += [Change(at, False, name) for name in gone]
        for index in range(len(gone)):
            back = at + rng.uniform(0, 600)
            changes.append(Change(back, True, f"back{number}-{index}"))
            if (end := back + rng.expovariate(1 / life_s)) < length_s:
                changes.append(Change(end, False, f"back{number}-{index}"))
    changes = [c for c in changes if c.at_s < length_s]
    return tuple(sorted(changes, key=lambda c: (c.at_s, not c.joins)))


def _present(changes: list[Change], at: float) -> list[Change]:
    gone = {c.name for c in changes if not c.joins and c.at_s <= at}
    return sorted(c for c in changes if c.joins and c.at_s <= at and c.name not in gone)


def _steady(rng: random.Random, rate: float, length_s: float) -> Iterator[float]:
    at = rng.expovariate(rate)
    while at < length_s:
        yield at
        at += rng.expovariate(rate)


def _churn(peers: int, life: Lives, joins: Iterator[float], length_s: float) -> tuple[Change, ...]:
    leaving: list[tuple[float, str]] = []
    changes: list[Change] = []
    for number, at in enumerate(itertools.chain([0.0] * peers, joins)):
        changes += _gone(leaving, at)
        name = f"peer{number}"
        changes.append(Change(at, True, name))
        heapq.heappush(leaving, (at + life(), name))
    changes += _gone(leaving, length_s)
    return tuple(changes)


def _gone(leaving: list[tuple[float, str]], before: float) -> Iterator[Change]:
    while leaving and leaving[0][0] < before:
        at, name = heapq.heappop(leaving)
        yield Change(at, False, name)
