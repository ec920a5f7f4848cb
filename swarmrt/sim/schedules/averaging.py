"""Seeded schedules for swarms whose replicas make steps of their own, or have a momentum each:
those of all other kinds."""

from __future__ import annotations

import random
from dataclasses import replace

from swarmrt.sim.schedules import faults, hardships, seats, spares, unlike

DRAWS = (faults.draw, hardships.draw, seats.draw, spares.draw, unlike.draw)


def draw(seed: int) -> faults.Scenario:
    """Draw a scenario, with how many microbatches a replica's own step has, how many first
    steps have none, and how many islands there may be. Every seventh has no such steps, and
    momenta, and every seventh rounds by a clock."""
    scenario = DRAWS[seed % len(DRAWS)](seed)
    rng = random.Random(f"averaging {seed}")
    rounds_once = scenario.unlike_share > 0.0
    has_momenta, has_clock = seed % 7 == 6, seed % 7 == 5
    return replace(
        scenario,
        by_owners=False,
        staleness=0,
        fresh_steps=0,
        local_batch=0 if has_momenta else rng.choice((1, 1, 2, 3, 8)),
        sync_steps=0 if rounds_once or has_momenta or has_clock else rng.choice((0, 0, 1, 3)),
        has_momenta=has_momenta,
        every_s=float(rng.choice((1, 4, 20))) if has_clock else 0.0,
        microbatches=scenario.microbatches * (4 if has_clock else 1),
        steps=scenario.steps + rng.randint(0, 4),
        most_late=rng.choice((0.1, 0.5, 1.0, 1.0)),
        islands=rng.choice((1, 1, 2, 2, 3)),
    )
