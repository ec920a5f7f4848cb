"""How much shorter a step is by a plan: beside placements at random, and DT-FM's search.

    python scripts/bench_placement.py [--seeds 3] [--json]

64 peers in 8 regions (10 to 250 ms and 0.3 to 1.3 Gb/s apart, 5 ms and 2 Gb/s inside), 8 stages,
0.3 s a microbatch, 1,024 of them, 2 MB a message, 2 GB of gradients, a peer's slices one after the
other. With `narrow`, eight of the peers have 20 Mb/s.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

from swarmrt.lab.placing.regions import regions
from swarmrt.scheduler.placement.dtfm import dtfm
from swarmrt.scheduler.placement.facts import Network
from swarmrt.scheduler.placement.search import plan
from swarmrt.scheduler.placement.step_time import Timing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [
        _row(seed, spread, narrow)
        for spread in (1.0, 4.0)
        for narrow in (False, True)
        for seed in range(options.seeds)
    ]
    if options.json:
        print(json.dumps(rows))
        return
    print("speeds  links   seed  step s  over random  over DT-FM  left out  seconds")
    for row in rows:
        links = "narrow" if row["narrow"] else "wide"
        print(
            f"1:{row['spread']:<4.0f}  {links:6}  {row['seed']:4}  {row['step_s']:6.0f}"
            f"  {row['over_random']:11.2f}  {row['over_dtfm']:10.2f}  {row['left_out']:8}"
            f"  {row['seconds']:7.1f}"
        )


def _row(seed: int, spread: float, narrow: bool) -> dict[str, float]:
    job, network = regions(seed, spread)
    if narrow:
        network = _narrowed(network)
    started = time.perf_counter()
    found = plan(job, network, seed=seed)
    seconds = time.perf_counter() - started
    theirs = Timing(job, network).of(dtfm(job, network, seed=seed)).total_s
    return {
        "spread": spread,
        "narrow": narrow,
        "seed": seed,
        "step_s": found.time.total_s,
        "over_random": found.gain,
        "over_dtfm": theirs / found.time.total_s,
        "left_out": len(found.left_out),
        "seconds": seconds,
    }


def _narrowed(network: Network) -> Network:
    every, narrow = range(len(network.names)), set(range(0, len(network.names), 9))
    bytes_per_s = tuple(
        tuple(20e6 / 8 if {p, q} & narrow else network.bytes_per_s[p][q] for q in every)
        for p in every
    )
    return replace(network, bytes_per_s=bytes_per_s)


if __name__ == "__main__":
    main()
