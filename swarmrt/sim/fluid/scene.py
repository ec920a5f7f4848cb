"""The scene of a simulation: stages, everybody's traits, who comes and goes, what things take."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from swarmrt.scheduler.rebalancing.swarm import Limits, Stage
from swarmrt.scheduler.wiring.policy import BUILT_IN
from swarmrt.sim.fluid.trace import Change


@dataclass(frozen=True, slots=True)
class Traits:
    """A peer's true rate, and what its owner permits."""

    rate: float = 1.0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Scene:
    """A simulation's world. Peers without traits of their own have those of everybody."""

    stages: tuple[Stage, ...]
    changes: tuple[Change, ...]
    end_s: float
    traits: dict[str, Traits] = field(default_factory=dict)
    everybody: Traits = field(default_factory=Traits)
    detect_s: float = 5.0  # from a peer's end until the trainer knows
    decide_s: float = 2.0  # from a decision until it is obeyed
    step_s: float = 120.0  # a step's length, where `step_microbatches` does not say it
    step_microbatches: float = 0.0
    noise: float = 0.0  # of a microbatch's duration, as a share of it; 0: rates are known
    length_spread: float = 0.0  # of a microbatch's work, as a share of its mean
    redo_s: float = 0.0  # work that is done again when a stage's state was lost
    latency_s: float = 0.05  # of a message; where microbatches flow, as all below
    staleness: int = 1  # 1: the next step is computed while one is reduced
    reduce_s: float | None = None  # until a step is committed; None: as links have it
    wiring: str = BUILT_IN  # policy of it

    def traits_of(self, name: str) -> Traits:
        return self.traits.get(name, self.everybody)

    def wait_s(self, name: str) -> float:
        """Return how long a newcomer loads before oracle b counts it: a mean state."""
        downlink = self.traits_of(name).limits.downlink_bytes_per_s
        if math.isinf(downlink):
            return 0.0
        return sum(stage.state_bytes for stage in self.stages) / len(self.stages) / downlink
