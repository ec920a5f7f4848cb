"""Seeded schedules for swarms with spares: those of faults and of hardships, fewer replicas."""

from __future__ import annotations

import random
from dataclasses import replace

from swarmrt.ids import PeerId
from swarmrt.sim.schedules import faults, hardships


def draw(seed: int) -> faults.Scenario:
    """Draw a scenario. Some stage has a spare, in every other one beside a lone replica; and half
    of the newcomers are spares."""
    scenario = (faults.draw if seed % 2 else hardships.draw)(seed)
    rng = random.Random(f"spares {seed}")
    replicas = scenario.replicas
    if rng.random() < 0.5:
        replicas = (1,) * len(replicas)
    spares = [rng.choice((0, 1, 1, 2)) for _ in replicas]
    if not any(spares):
        spares[rng.randrange(len(spares))] = 1
    links = dict(scenario.links)
    if scenario.sizes is not None:
        link = rng.choice(hardships.LINKS)
        for stage, number in enumerate(spares):
            names = (PeerId(f"s{stage}p{replicas[stage] + place}") for place in range(number))
            links.update(dict.fromkeys(names, link))
    return replace(
        scenario,
        replicas=replicas,
        spares=tuple(spares),
        links=tuple(links.items()),
        faults=tuple(_spared(rng, fault) for fault in scenario.faults),
    )


def _spared(rng: random.Random, fault: faults.Fault) -> faults.Fault:
    """Return the fault, or a spare that comes in the place of a newcomer."""
    is_one = fault.kind == "join" and rng.random() < 0.5
    return replace(fault, kind="join spare") if is_one else fault
