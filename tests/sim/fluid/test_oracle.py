"""The oracle's partitions, beside what looking at every one finds."""

from __future__ import annotations

import itertools
import random

from swarmrt.sim.fluid.oracle import best_rate, bound


def enumerated(speeds: list[float], computes: tuple[float, ...]) -> float:
    stages = range(len(computes))
    return max(
        min(
            sum(speed for speed, place in zip(speeds, places, strict=True) if place == stage)
            / computes[stage]
            for stage in stages
        )
        for places in itertools.product(stages, repeat=len(speeds))
    )


def test_equal_speeds_are_optimal() -> None:
    for peers in range(9):
        for computes in [(1.0, 1.0, 1.0), (1.0, 2.0, 0.5)]:
            speeds = [1.0] * peers
            assert abs(best_rate(speeds, computes) - enumerated(speeds, computes)) < 1e-9


def test_unequal_speeds_are_optimal_where_all_can_be_looked_at() -> None:
    for seed in range(30):
        rng = random.Random(seed)
        speeds = [rng.uniform(1, 8) for _ in range(8)]
        computes = (1.0, 1.0, rng.choice([1.0, 2.0]))
        found, best = best_rate(speeds, computes), enumerated(speeds, computes)
        assert best * 0.999 <= found <= best * (1 + 1e-9)


def test_nothing_exceeds_the_bound() -> None:
    rng = random.Random(1)
    for _ in range(30):
        speeds = [rng.uniform(1, 8) for _ in range(rng.randrange(8, 40))]
        computes = (1.0,) * 8
        assert best_rate(speeds, computes) <= bound(speeds, computes) * (1 + 1e-9)
        assert best_rate(reversed(speeds), computes) == best_rate(speeds, computes)
