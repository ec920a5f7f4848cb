"""The cost of wiring to a sender among very many replicas, and what a large swarm comes to by it.

    python scripts/bench_wiring.py [--replicas 10000] [--swarm 312] [--json]

The swarm is simulated by `swarmrt/sim/flow`: production wiring, and nothing else.
Times are the least of three rounds: other work on the machine only adds to them.
"""

from __future__ import annotations

import argparse
import json

from swarmrt.lab.bench.wiring_swarm import Swarm, Wired
from swarmrt.lab.bench.wiring_times import Times, times
from swarmrt.scheduler.wiring.policy import BUILT_IN

WINDOWS, WINDOW_S = 3, 100.0


def least_times(replicas: int, rounds: int = 3) -> dict[str, Times]:
    found = [times(replicas) for _ in range(rounds)]
    return {
        name: Times(*(min(values) for values in zip(*(one[name] for one in found), strict=True)))
        for name in found[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replicas", type=int, default=10_000, help="of which one sender knows")
    parser.add_argument(
        "--swarm", type=int, default=312, help="replicas of a simulated stage; or 0"
    )
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--spread", type=float, default=8.0, help="slowest over fastest")
    parser.add_argument("--holds", type=int, default=0, help="microbatches that a replica can hold")
    parser.add_argument("--unknown", action="store_true", help="no replica says how fast it is")
    parser.add_argument("--policy", default=BUILT_IN)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args()
    taken = least_times(options.replicas) if options.replicas else {}
    result: dict[str, object] = {
        "replicas": options.replicas,
        "times": {name: time._asdict() for name, time in taken.items()},
    }
    if options.swarm:
        swarm = Swarm(
            stages=options.stages,
            replicas=options.swarm,
            spread=options.spread,
            says_first=not options.unknown,
            holds=options.holds,
            policy=options.policy,
            seed=options.seed,
        )
        wired = Wired(swarm)
        landed, computed = zip(*(wired.shares(WINDOW_S) for _ in range(WINDOWS)), strict=True)
        result |= {"window_s": WINDOW_S, "landed": landed, "computed": computed}
    if options.json:
        print(json.dumps(result))
        return
    for name, time in taken.items():
        print(f"{name:28} {time.median_us:10.1f} us, {time.worst_percent_us:.1f} in the worst 1 %")
    if options.swarm:
        print(f"share of capacity, in windows of {WINDOW_S:.0f} s")
        print("  landed   ", *(f"{share:.3f}" for share in landed))
        print("  computed ", *(f"{share:.3f}" for share in computed))


if __name__ == "__main__":
    main()
