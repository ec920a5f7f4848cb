"""Time one rebalancing round over 10,000 peers and 32 stages, in several situations."""

from __future__ import annotations

import math
import random
import time

from swarmrt.scheduler.rebalancing.rebalance import rebalance
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.swarm import Limits, Peer, Stage, Swarm

PEERS, STAGES = 10_000, 32
HIT = (3, 7)  # stages that have lost half of their peers
LIMITS = Limits(downlink_bytes_per_s=1.0)
STAGE = Stage(state_bytes=300.0, gradient_bytes=25.0)


def swarm(situation: str, spread: float) -> Swarm:
    rng = random.Random(1)
    peers = []
    for number in range(PEERS):
        stage, second = number % STAGES, rng.randrange(STAGES)
        rate = math.exp(rng.uniform(0, math.log(spread)))
        if situation == "half of two stages lost" and stage in HIT and rng.random() < 0.5:
            continue
        if situation == "all are new":
            peers.append(Peer(f"p{number}", rate, limits=LIMITS))
            continue
        holds = {stage} if situation == "nobody stands by" else {stage, second}
        peers.append(Peer(f"p{number}", rate, stage, frozenset(holds), limits=LIMITS))
    return Swarm(0.0, (STAGE,) * STAGES, tuple(peers), step_s=120.0)


def main() -> None:
    for situation in ("at rest", "nobody stands by", "all are new", "half of two stages lost"):
        for spread in (1.0, 8.0):
            known = swarm(situation, spread)
            start = time.process_time()
            plan = rebalance(known, Settings())
            seconds = time.process_time() - start
            done = f"{len(plan.switches)} switches, {len(plan.downloads)} downloads"
            print(f"{situation:24} speeds 1:{spread:g}  {seconds:6.3f} s  {done}", flush=True)


if __name__ == "__main__":
    main()
