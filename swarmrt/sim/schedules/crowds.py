"""Seeded schedules for swarms that are large for their trainer: those of other kinds, with beacons
that are as rare as among thousands."""

from __future__ import annotations

import random
from dataclasses import replace

from swarmrt.sim.schedules import faults, hardships, moves, pauses, spares

BEACONS_PER_S = (0.5, 1.0, 2.0, 5.0)  # which a few peers exceed


def draw(seed: int) -> faults.Scenario:
    drawers = (faults.draw, hardships.draw, spares.draw, pauses.draw, moves.draw)
    scenario = drawers[seed % len(drawers)](seed)
    rng = random.Random(f"crowds {seed}")
    return replace(scenario, most_beacons_per_s=rng.choice(BEACONS_PER_S))
