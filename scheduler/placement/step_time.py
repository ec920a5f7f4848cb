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

from swarmrt.scheduler.placement.facts import Job, Network, Placement


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
            cost = self._job.stages[stage]
            speed = sum(self._speeds[peer] for peer in peers)
            rate = speed / cost.compute_s
            service_s = len(peers) * cost.compute_s / speed  # shares follow speeds
            reduce_s = self._reduce_s(peers, cost.gradient_bytes)
            self._stage_memo[key] = rate, service_s, reduce_s
        return self._stage_memo[key]

    def _reduce_s(self, peers: tuple[int, ...], gradient_bytes: float) -> float:
        if len(peers) == 1:
            return 0.0
        size = gradient_bytes / len(peers)
        whole = sum if self._job.reduce == "serial" else max
        return 2.0 * max(
            whole([self._way_s(size, one, other) for other in peers if other != one])
            for one in peers
        )

    def _way_s(self, size: float, one: int, other: int) -> float:
        return self._delay_s[one][other] + size / self._bytes_per_s[one][other]

    def _hop(self, stage: int, ones: tuple[int, ...], others: tuple[int, ...]) -> float:
        """Return the mean seconds there and back, by the shares of work."""
        key = (stage, ones, others)
        if key not in self._hop_memo:
            size, speeds = self._job.stages[stage].output_bytes, self._speeds
            seconds = sum(
                speeds[one]
                * speeds[other]
                * (self._way_s(size, one, other) + self._way_s(size, other, one))
                for one in ones
                for other in others
            )
            shares = sum(speeds[p] for p in ones) * sum(speeds[p] for p in others)
            self._hop_memo[key] = seconds / shares
        return self._hop_memo[key]


def rates(job: Job, network: Network, placement: Placement) -> Mapping[int, float]:
    """Return each stage's rate, in microbatches a second."""
    return {
        stage: sum(network.speeds[peer] for peer in peers) / job.stages[stage].compute_s
        for stage, peers in enumerate(placement)
    }
