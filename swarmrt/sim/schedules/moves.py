"""Seeded schedules for swarms of processes that serve where they help most: those of faults and of
hardships, in which such processes take the place of replicas, come, and change their pace."""

from __future__ import annotations

import random
from dataclasses import replace

from swarmrt.ids import PeerId
from swarmrt.sim.peer.steward import Mover
from swarmrt.sim.schedules import faults, hardships


def draw(seed: int) -> faults.Scenario:
    """Draw a scenario of two or three stages. Half of them have a replica of each stage that stays;
    in the others whatever is served is served by those that move."""
    scenario = (faults.draw if seed % 2 else hardships.draw)(seed)
    rng = random.Random(f"moves {seed}")
    stages = max(2, len(scenario.replicas))
    stay = rng.random() < 0.5
    replicas = tuple(rng.choice((1, 1, 2)) if stay else 0 for _ in range(stages))
    movers = tuple(_mover(rng, stages, any_stage=not stay) for _ in range(rng.randint(stages, 6)))
    links = scenario.links
    if scenario.sizes is not None:
        some = hardships.LINKS[rng.randrange(len(hardships.LINKS)) :]
        names = [f"s{stage}p{n}" for stage, number in enumerate(replicas) for n in range(number)]
        names += [f"m{number}" for number in range(len(movers))]
        links = tuple((PeerId(name), rng.choice(some)) for name in names)
    return replace(
        scenario,
        replicas=replicas,
        steps=scenario.steps + rng.randint(2, 6),
        movers=movers,
        standby_share=rng.choice((0.0, 0.25, 0.5, 1.0, 1.0)),
        rearrange_s=rng.choice((1.0, 5.0, 60.0)),
        links=links,
        faults=tuple(_moved(rng, fault, stages) for fault in scenario.faults),
    )


def _mover(rng: random.Random, stages: int, *, any_stage: bool) -> Mover:
    number = stages if any_stage else rng.randint(1, stages)
    allowed = tuple(sorted(rng.sample(range(stages), number)))
    if any_stage:
        return Mover(allowed, 2)
    return Mover(allowed, rng.choice((1, 2, 2, 3)), is_pinned=rng.random() < 0.1)


def _moved(rng: random.Random, fault: faults.Fault, stages: int) -> faults.Fault:
    """Return the fault; or one that comes or changes its pace in its place."""
    if fault.kind in ("join", "join spare") or rng.random() < 0.2:
        fault = replace(fault, kind=rng.choice(("join mover", "pace")), link=None)
    return replace(fault, stage=rng.randrange(stages))
