"""Rates from long means: deaf to noise, not to change."""

from __future__ import annotations

import random

from swarmrt.scheduler.rebalancing.rates import LONG, LongMean

A_DAY = 86_400


def tell(mean: LongMean, rng: random.Random, rate: float, count: int, spread: float = 0.0) -> None:
    """Let a mean hear of microbatches one by one, with a fifth of noise in each."""
    for _ in range(count):
        work = rng.lognormvariate(0, spread)
        mean.record(1, work, work / rate * max(0.05, rng.gauss(1, 0.2)))


def test_a_day_of_noise_changes_nothing() -> None:
    mean = LongMean(1.0)
    tell(mean, random.Random(1), 1.0, A_DAY)
    assert mean.told == 1.0


def test_microbatches_of_unequal_length_are_no_change() -> None:
    mean = LongMean(1.0)
    tell(mean, random.Random(2), 1.0, A_DAY, spread=1.0)
    assert mean.told == 1.0


def test_who_becomes_slower_is_noticed_within_a_mean() -> None:
    rng, mean = random.Random(3), LongMean(1.0)
    tell(mean, rng, 1.0, 1000)
    tell(mean, rng, 0.7, 2 * LONG)
    assert abs(mean.told - 0.7) < 0.7 * 0.06


def test_who_says_too_much_of_itself_is_noticed_early() -> None:
    mean = LongMean(2.0)
    tell(mean, random.Random(4), 1.0, 100)
    assert abs(mean.told - 1.0) < 0.15


def test_what_cannot_be_is_not_counted() -> None:
    mean = LongMean(1.0)
    for count, work, busy_s in [(0, 1.0, 1.0), (900, float("nan"), 1.0), (900, 1.0, 0.0)]:
        mean.record(count, work, busy_s)
    mean.record(900, float("inf"), 1.0)
    assert mean.told == 1.0
