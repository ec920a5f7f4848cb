"""Seeded schedules for swarms whose hosts round differently: those of faults and of hardships."""

from __future__ import annotations

import random
from dataclasses import replace

from swarmrt.sim.schedules import faults, hardships


def draw(seed: int) -> faults.Scenario:
    """Draw a scenario. In every other one updates by the parts' owners are asked for; in the others
    it has to be found out that replicas differ."""
    scenario = (faults.draw if seed % 2 else hardships.draw)(seed)
    rng = random.Random(f"unlike {seed}")
    share, by_owners = rng.choice((0.2, 0.5)), rng.random() < 0.5
    steps = scenario.steps + rng.randint(0, 6)
    return replace(scenario, steps=steps, unlike_share=share, by_owners=by_owners)
