"""Seeded schedules for peers whose owners limit them: schedules of faults, of hardships and of
spares, with pauses among them, and little memory."""

from __future__ import annotations

import random
from dataclasses import replace

from swarmrt.sim.schedules import faults, hardships, spares

PAUSES = ("owner pauses", "owner pauses gently")
LONG_S = (20.0, 60.0)  # in which others make versions


def draw(seed: int) -> faults.Scenario:
    """Draw a scenario. Owners take their devices once or more, as others fail."""
    scenario = (faults.draw, hardships.draw, spares.draw)[seed % 3](seed)
    rng = random.Random(f"pauses {seed}")
    drawn = [_paused(rng, fault) for fault in scenario.faults]
    first = replace(drawn[0], kind=rng.choice(PAUSES))
    more = [replace(first, at_s=first.at_s + rng.uniform(0, 5), pick=rng.randrange(4))]
    found = [first, *drawn[1:], *more[: rng.randrange(2)]]
    faults_drawn = tuple(sorted(found, key=lambda fault: fault.at_s))
    return replace(scenario, faults=faults_drawn, holds=rng.choice((0, 1, 2, 3)))


def _paused(rng: random.Random, fault: faults.Fault) -> faults.Fault:
    """Return the fault, or a pause in its place."""
    if rng.random() < 0.5:
        return fault
    seconds = rng.uniform(*LONG_S) if rng.random() < 0.3 else fault.seconds
    return replace(fault, kind=rng.choice(PAUSES), seconds=seconds)
