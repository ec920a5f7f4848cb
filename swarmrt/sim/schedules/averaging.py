"""Seeded schedules for swarms whose replicas make steps of their own: those of all other kinds."""

from __future__ import annotations

import random
from dataclasses import replace

from swarmrt.sim.schedules import faults, hardships, seats, spares, unlike

DRAWS = (faults.draw, hardships.draw, seats.draw, spares.draw, unlike.draw)


def draw(seed: int) -> faults.Scenario:
    """Draw a scenario, with how many microbatches a replica's own step has, how many first
    steps have none, and how many islands there may be."""
    scenario = DRAWS[seed % len(DRAWS)](seed)
    rng = random.Random(f"averaging {seed}")
    rounds_once = scenario.unlike_share > 0.0
    return replace(
        scenario,
        by_owners=False,
        staleness=0,
        fresh_steps=0,
        local_batch=rng.choice((1, 1, 2, 3, 8)),
        sync_steps=0 if rounds_once else rng.choice((0, 0, 1, 3)),
        steps=scenario.steps + rng.randint(0, 4),
        most_late=rng.choice((0.1, 0.5, 1.0, 1.0)),
        islands=rng.choice((1, 1, 2, 2, 3)),
    )
