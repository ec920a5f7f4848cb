"""Seeded schedules of what befalls real swarms: bytes over narrow links, and threads that hang."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import get_args

from swarmrt.ids import PeerId
from swarmrt.sim.engine.links import MACHINE_ROOM, Link, Sizes
from swarmrt.sim.engine.network import Weather
from swarmrt.sim.peer.jobs import Thread
from swarmrt.sim.schedules.faults import CALM, LONG_S, SHORT_S, Fault, Scenario
from swarmrt.sim.schedules.faults import KINDS as OTHER_KINDS

KINDS = (
    "hang",
    "radio",
    "radio trainer",
    "datagrams",
    "directory",
    "disk",
    "mass death",
    "slow newcomer",
)
HOME = Link(up_bytes_per_s=2.5e6, down_bytes_per_s=2.5e6, latency_s=0.025)
CABLE = Link(up_bytes_per_s=5e6, down_bytes_per_s=25e6, latency_s=0.01)
FIBRE = Link(up_bytes_per_s=60e6, down_bytes_per_s=60e6, latency_s=0.004)
LINKS = (HOME, CABLE, FIBRE, MACHINE_ROOM)
"""Links of all hosts of a swarm, from these."""


def draw(seed: int) -> Scenario:
    rng = random.Random(f"hardships {seed}")
    replicas = tuple(rng.choice((1, 2, 2, 3)) for _ in range(rng.choice((1, 2, 3))))
    gradient_bytes = rng.choice((100_000, 2_000_000, 8_000_000, 30_000_000))
    service_s = rng.choice((LONG_S, LONG_S, SHORT_S))
    slowest = rng.randrange(len(LINKS))
    links = tuple(
        (PeerId(f"s{stage}p{number}"), rng.choice(LINKS[slowest:]))
        for stage, count in enumerate(replicas)
        for number in range(count)
    )
    faults = [_draw_fault(rng, len(replicas)) for _ in range(rng.randint(1, 6))]
    return Scenario(
        seed=seed,
        replicas=replicas,
        steps=rng.randint(3, 8),
        microbatches=rng.randint(1, 6),
        eval_every=rng.choice((0, 2)),
        checkpoint_every=rng.choice((0, 1, 3)),
        queue_s=rng.choice((0.3, 5.0)),
        retained_frames=rng.choice((0, 3, 1000)),
        skew_s=rng.choice((0.0, 1000.0)),
        drift=rng.choice((0.0, 0.02)),
        faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
        staleness=rng.choice((0, 1)),
        service_s=service_s,
        sizes=Sizes(
            state_bytes=3 * gradient_bytes,
            gradient_bytes=gradient_bytes,
            activation_bytes=rng.choice((1000, 100_000, 1_000_000)),
        ),
        links=links,
    )


def _draw_fault(rng: random.Random, num_stages: int) -> Fault:
    """Two of three are of those that only real swarms know."""
    kind = rng.choice(KINDS if rng.random() < 2 / 3 else OTHER_KINDS)
    fault = Fault(
        at_s=rng.uniform(0, 20),
        kind=kind,
        stage=rng.randrange(num_stages),
        pick=rng.randrange(4),
        other=rng.randrange(8),
        seconds=rng.uniform(0.2, 8.0),
    )
    match kind:
        case "hang":
            seconds = rng.choice((rng.uniform(0.5, 5), rng.uniform(20, 200)))
            return replace(fault, thread=rng.choice(get_args(Thread)), seconds=seconds)
        case "radio" | "radio trainer":
            return replace(fault, seconds=rng.uniform(2, 5))
        case "datagrams":
            weather = Weather(
                late_s=rng.uniform(0.1, 2.0),
                datagrams_lost=rng.choice((0.0, 0.1, 0.3)),
                datagrams_late=rng.choice((0.0, 0.3)),
            )
            return replace(fault, weather=weather, seconds=rng.uniform(2, 30))
        case "storm":
            weather = Weather(
                lost=rng.choice((0.0, 0.05, 0.2)),
                doubled=rng.choice((0.0, 0.3)),
                late=rng.choice((0.0, 0.3)),
                late_s=rng.uniform(0.1, 2.0),
            )
            return replace(fault, weather=weather)
        case "directory" | "disk":
            return replace(fault, seconds=rng.uniform(2, 60))
        case "slow newcomer":
            return replace(fault, kind="join", link=HOME)
    return replace(fault, weather=CALM)
