"""Seeded schedules for swarms in which processes hold several seats: those of faults and of
hardships."""

from __future__ import annotations

import random
from dataclasses import replace

from swarmrt.ids import PeerId
from swarmrt.sim.schedules import faults, hardships


def draw(seed: int) -> faults.Scenario:
    """Draw a scenario with one to three processes that have seats at two stages or more."""
    scenario = (faults.draw if seed % 2 else hardships.draw)(seed)
    rng = random.Random(f"seats {seed}")
    stages = max(2, len(scenario.replicas))
    alone = [*scenario.replicas, *[1] * (stages - len(scenario.replicas))]
    hosts = tuple(
        tuple(sorted(rng.sample(range(stages), rng.randint(2, stages))))
        for _ in range(rng.randint(1, 3))
    )
    held = {stage for host in hosts for stage in host}
    replicas = tuple(
        rng.choice((0, number)) if stage in held else number for stage, number in enumerate(alone)
    )
    links = scenario.links
    if links:
        slowest = rng.randrange(len(hardships.LINKS))
        some = hardships.LINKS[slowest:]
        links += tuple((PeerId(f"h{number}"), rng.choice(some)) for number in range(len(hosts)))
    return replace(scenario, replicas=replicas, hosts=hosts, links=links)
