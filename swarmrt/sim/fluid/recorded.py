"""Scenes from a trace alone: equal stages, equal or unequal peers."""

from __future__ import annotations

import math
import random

from swarmrt.scheduler.rebalancing.swarm import Limits, Stage
from swarmrt.sim.fluid.scene import Scene, Traits
from swarmrt.sim.fluid.trace import Change

GRADIENT_SHARE = 1 / 12  # of a state: a byte a parameter, beside Adam's three floats


def scene_of(
    changes: tuple[Change, ...],
    num_stages: int,
    *,
    download_s: float = 0.0,
    spread: float = 1.0,
    seed: int = 0,
    detect_s: float = 5.0,
    decide_s: float = 2.0,
    step_s: float = 120.0,
    noise: float = 0.0,
    length_spread: float = 0.0,
) -> Scene:
    """Return a scene in which a state loads in `download_s`, and the fastest peer is `spread` times
    as fast as the slowest, log-uniformly, drawn by name from the seed."""
    stage = Stage(state_bytes=download_s, gradient_bytes=download_s * GRADIENT_SHARE)
    limits = Limits(downlink_bytes_per_s=1.0)
    traits = {}
    if spread != 1.0:
        for name in dict.fromkeys(change.name for change in changes):
            rng = random.Random(f"{seed}/speed/{name}")
            rate = math.exp(rng.uniform(0, math.log(spread)))
            traits[name] = Traits(rate, limits)
    return Scene(
        stages=(stage,) * num_stages,
        changes=changes,
        end_s=max(change.at_s for change in changes),
        traits=traits,
        everybody=Traits(1.0, limits),
        detect_s=detect_s,
        decide_s=decide_s,
        step_s=step_s,
        noise=noise,
        length_spread=length_spread,
    )
