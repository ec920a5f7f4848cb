"""Networks and jobs whose placements can all be tried, drawn from a seed."""

from __future__ import annotations

import numpy as np

from swarmrt.scheduler.placement.facts import Job, Network, StageCost


def small(seed: int, peers: int = 6, stages: int = 3) -> tuple[Job, Network]:
    """Return an instance whose placements can all be enumerated."""
    rng = np.random.default_rng(seed)
    delay_s = rng.uniform(0.001, 0.2, (peers, peers))
    bytes_per_s = rng.uniform(1e6, 1e8, (peers, peers))
    speeds = np.exp(rng.uniform(0, np.log(4), peers))
    names = tuple(f"p{number}" for number in range(peers))
    links = (tuple(map(tuple, matrix.tolist())) for matrix in (delay_s, bytes_per_s))
    network = Network(names, tuple(speeds.tolist()), (8e9,) * peers, *links)
    costs = rng.uniform(0.1, 0.4, stages)
    job = Job(tuple(StageCost(float(cost), 2e6, 5e7, 1e9) for cost in costs), microbatches=32)
    return job, network
