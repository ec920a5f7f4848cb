"""Seeded schedules for processes that serve where they help most: theirs, with moves that are asked
for among the faults."""

from __future__ import annotations

import random
from dataclasses import replace

from swarmrt.sim.schedules import faults, moves

MOST = 6  # moves that are asked for
WITHIN_S = 20.0  # of the first committed step
STAYS_S = (0.5, 8.0)  # before whoever has moved may be moved again


def draw(seed: int) -> faults.Scenario:
    """Draw a scenario of moves; who is asked for each, where to and when, is drawn besides."""
    scenario = moves.draw(seed)
    rng = random.Random(f"requests {seed}")
    stages = len(scenario.replicas)
    asked = [
        faults.Fault(
            rng.uniform(0.0, WITHIN_S), "request", rng.randrange(stages), rng.randrange(8), 0,
            rng.uniform(*STAYS_S),
        )
        for _ in range(rng.randint(1, MOST))
    ]  # fmt: skip
    drawn = sorted([*scenario.faults, *asked], key=lambda fault: fault.at_s)
    return replace(scenario, faults=tuple(drawn))
