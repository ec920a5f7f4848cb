"""The share of its capacity that a large swarm comes to by its wiring alone.

Stages of many replicas in the `flow` simulator, without steps, churn or rebalancing: what is left
of the capacity is what wiring loses.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from swarmrt.scheduler.wiring.policy import BUILT_IN
from swarmrt.sim.flow.seats import Device, Seat
from swarmrt.sim.flow.traffic import Settings, Traffic


@dataclass(frozen=True, kw_only=True)
class Swarm:
    """A swarm to be looked at."""

    stages: int = 4
    replicas: int = 312  # of each stage
    fastest_s: float = 0.5  # of a forward and a backward
    spread: float = 8.0  # times as long the slowest one takes
    noise: float = 0.2  # of each computation, as a share
    latency_s: float = 0.05  # of a message
    says_first: bool = True  # a replica says how long it takes before it has computed anything
    holds: int = 0  # microbatches that a replica can hold; 0 for as many as there are
    policy: str = BUILT_IN
    seed: int = 0


class Wired:
    """A swarm at work, wired by production code."""

    def __init__(self, swarm: Swarm) -> None:
        self._traffic = Traffic(
            Settings(
                stages=swarm.stages,
                latency_s=swarm.latency_s,
                noise=swarm.noise,
                is_noise_uniform=True,
                holds=swarm.holds,
                policy=swarm.policy,
                seed=swarm.seed,
            )
        )
        rng, seats = random.Random(swarm.seed), []
        rates = [0.0] * swarm.stages
        for stage in range(swarm.stages):
            for number in range(swarm.replicas):
                service_s = swarm.fastest_s * swarm.spread ** rng.random()
                rates[stage] += 1 / service_s
                device = Device(f"peer-{stage}-{number:04d}", 1 / service_s)
                seats.append((device, stage, service_s, service_s * swarm.says_first))
        self._traffic.opens(seats)
        self.capacity_per_s = min(rates)  # microbatches that the poorest stage could do
        self._poorest = rates.index(self.capacity_per_s)

    @property
    def seats(self) -> list[Seat]:
        return list(self._traffic.rosters.by_name.values())

    def shares(self, seconds: float) -> tuple[float, float]:
        """Go on for so long; return which shares of its capacity have landed and were computed
        meanwhile. At first what is computed is on its way."""
        traffic, poorest = self._traffic, self._poorest
        landed, computed = traffic.landed, traffic.computed[poorest]
        traffic.run(traffic.now + seconds)
        possible = self.capacity_per_s * seconds
        return (traffic.landed - landed) / possible, (
            traffic.computed[poorest] - computed
        ) / possible
