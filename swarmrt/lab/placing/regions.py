"""A network of regions to place a job on, drawn from a seed, for benchmarks and tests."""

from __future__ import annotations

import numpy as np

from swarmrt.scheduler.placement.facts import Job, Network, StageCost

REGIONS = 8


def regions(seed: int, spread: float = 1.0, peers: int = 64) -> tuple[Job, Network]:
    """Return 8 regions, 10 to 250 ms and 0.3 to 1.3 Gb/s apart, with 5 ms and 2 Gb/s inside."""
    rng = np.random.default_rng(seed)
    where = np.arange(peers) % REGIONS
    delay_s, bits_per_s = (
        np.triu(rng.uniform(low, high, (REGIONS, REGIONS)), 1)
        for low, high in ((0.010, 0.250), (0.3e9, 1.3e9))
    )
    delay_s, bits_per_s = delay_s + delay_s.T, bits_per_s + bits_per_s.T
    np.fill_diagonal(delay_s, 0.005)
    np.fill_diagonal(bits_per_s, 2e9)
    there = np.ix_(where, where)
    speeds = tuple(np.exp(rng.uniform(0, np.log(spread), peers)).tolist())
    names = tuple(f"p{number}" for number in range(peers))
    network = Network(
        names,
        speeds,
        (1e12,) * peers,
        tuple(map(tuple, delay_s[there].tolist())),
        tuple(map(tuple, (bits_per_s[there] / 8).tolist())),
    )
    return Job((StageCost(0.3, 2e6, 2e9, 1e9),) * 8, microbatches=1024), network
