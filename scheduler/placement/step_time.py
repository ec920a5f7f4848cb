"""The time of a step under a placement.

    compute            all microbatches, at the rate of the slowest stage
    fill and drain     one microbatch through all stages and back, over the mean of the links that
                       stochastic wiring takes (the routing-weighted mean in the place of DT-FM's
                       matching: Yuan et al. 2022, arXiv 2206.01288)
    reduce             of the slowest stage: each replica has a slice for each other one, and a sum
                       from it

Without overlap they follow each other; with it the computing of a step hides the rest of the one
before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from swarmrt.scheduler.placement.facts import Floats, Job, Network, Placement


class StepTime(NamedTuple):
    """The parts of a step's time, in seconds."""

    compute_s: float
    fill_s: float
    reduce_s: float
    total_s: float
    slowest_stage: int  # by its rate
    slowest_reduce: int  # the stage


class Timing:
    """Times placements of one job on one network. What does not change is not computed again."""

    def __init__(self, job: Job, network: Network) -> None:
        self._job, self._speeds = job, network.speeds
        self._delay_s, self._bytes_per_s = network.delay_s, network.bytes_per_s
        self._stage_memo: dict[tuple[int, tuple[int, ...]], tuple[float, float, float]] = {}
        self._hop_memo: dict[tuple[int, tuple[int, ...], tuple[int, ...]], float] = {}

    def of(self, placement: Placement) -> StepTime:
        """Return the time of a step. Each stage needs a peer: it is infinite otherwise."""
        job, number = self._job, len(placement)
        if not all(placement):
            return StepTime(math.inf, math.inf, math.inf, math.inf, 0, 0)
        found = [self._of_stage(stage, peers) for stage, peers in enumerate(placement)]
        rates = [rate for rate, _, _ in found]
        reduces = [reduce_s for _, _, reduce_s in found]
        hops = [self._hop(s, placement[s], placement[s + 1]) for s in range(number - 1)]
        compute_s = job.microbatches / min(rates)
        fill_s = sum(service_s for _, service_s, _ in found) + sum(hops)
        reduce_s = max(reduces)
        rest_s = fill_s + reduce_s
        total_s = max(compute_s, rest_s) if job.overlaps else compute_s + rest_s
        slowest = (rates.index(min(rates)), reduces.index(reduce_s))
        return StepTime(compute_s, fill_s, reduce_s, total_s, *slowest)

    def score(self, placement: Placement) -> float:
        """Return what a search makes small: the time, and a little of what is not the slowest, so
        that it finds its way where the slowest does not change."""
        time = self.of(placement)
        if math.isinf(time.total_s):
            return math.inf
        reduces = [self._of_stage(stage, peers)[2] for stage, peers in enumerate(placement)]
        rates = [self._of_stage(stage, peers)[0] for stage, peers in enumerate(placement)]
        spare = sum(self._job.microbatches / rate for rate in rates) + sum(reduces)
        return time.total_s + 1e-2 * (spare + time.fill_s) / len(placement)

    def _of_stage(self, stage: int, peers: tuple[int, ...]) -> tuple[float, float, float]:
        """Rate in microbatches a second, mean seconds of one, seconds of its reduce."""
        key = (stage, peers)
        if key not in self._stage_memo:
            cost, whom = self._job.stages[stage], list(peers)
            speed = float(self._speeds[whom].sum())
            rate = speed / cost.compute_s
            service_s = len(whom) * cost.compute_s / speed  # shares follow speeds
            self._stage_memo[key] = rate, service_s, self._reduce_s(whom, cost.gradient_bytes)
        return self._stage_memo[key]

    def _reduce_s(self, whom: list[int], gradient_bytes: float) -> float:
        number = len(whom)
        if number == 1:
            return 0.0
        there = np.ix_(whom, whom)
        each = self._delay_s[there] + gradient_bytes / number / self._bytes_per_s[there]
        np.fill_diagonal(each, 0.0)
        of_peers: Floats = each.sum(1) if self._job.reduce == "serial" else each.max(1)
        return 2.0 * float(of_peers.max())

    def _hop(self, stage: int, ones: tuple[int, ...], others: tuple[int, ...]) -> float:
        """Return the mean seconds there and back, by the shares of work."""
        key = (stage, ones, others)
        if key not in self._hop_memo:
            whom, next_ = list(ones), list(others)
            there, back = np.ix_(whom, next_), np.ix_(next_, whom)
            size = self._job.stages[stage].output_bytes
            seconds = self._delay_s[there] + size / self._bytes_per_s[there]
            seconds = seconds + (self._delay_s[back] + size / self._bytes_per_s[back]).T
            one, other = self._speeds[whom], self._speeds[next_]
            mean = float(one @ seconds @ other) / float(one.sum() * other.sum())
            self._hop_memo[key] = mean
        return self._hop_memo[key]


def rates(job: Job, network: Network, placement: Placement) -> Mapping[int, float]:
    """Return each stage's rate, in microbatches a second."""
    return {
        stage: float(network.speeds[list(peers)].sum()) / job.stages[stage].compute_s
        for stage, peers in enumerate(placement)
    }
