"""The members of a simulated swarm, in truth, and as the trainer sees them."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from swarmrt.scheduler.rebalancing.rates import LongMean
from swarmrt.scheduler.rebalancing.swarm import Peer
from swarmrt.sim.fluid.scene import Traits


@dataclass(slots=True)
class Member:
    """A peer: what it serves, holds and loads. The dead stay until their end is noticed."""

    name: str
    traits: Traits
    joined_at: float
    tie: float
    mean: LongMean
    serving: int | None = None
    holds: set[int] = field(default_factory=set)
    loading: int | None = None
    load: int = 0  # number of its newest download: older ones are void
    serves_when_loaded: bool = False
    loads_to_serve: bool = False  # and not in order to stand by
    has_stopped: bool = False  # for a download it serves nothing, and has done so before
    is_alive: bool = True
    measured_at: float = 0.0

    def seen(self) -> Peer:
        """Return what the trainer knows of it."""
        return Peer(
            name=self.name,
            rate=self.mean.told,
            serving=self.serving,
            holds=frozenset(self.holds),
            loading=self.loading,
            serves_when_loaded=self.serves_when_loaded,
            limits=self.traits.limits,
        )

    def measure(
        self, now: float, compute: float, noise: float, spread: float, rng: random.Random
    ) -> None:
        """Let the trainer hear of what was computed since the last time, with noise in each
        microbatch's duration and a spread of their lengths."""
        elapsed = now - self.measured_at
        count = int(elapsed * self.traits.rate / compute)
        if count < 1:
            return
        self.measured_at = now
        mean_error = math.sqrt(1 / count)
        work = count * max(0.1, 1 + rng.gauss(0, spread * mean_error))
        slowness = max(0.1, 1 + rng.gauss(0, noise * mean_error))
        self.mean.record(count, work, work * slowness / self.traits.rate)
