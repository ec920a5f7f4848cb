"""The trainer's share of a swarm that is large: what it hears in a second, in the simulator.

Peers of one stage come within half a minute and wait for one more, so that nobody works: what is
left is what their number alone costs. `python -m swarmrt.lab.bench.crowd 16 256 1000 10000`.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass

from swarmrt.messages import Beacon
from swarmrt.scheduler.events import Event, PeersSeen, Received
from swarmrt.scheduler.instructions import Instruction, Send
from swarmrt.sim.swarm.world import World

COME_S = 30.0
SETTLED_S, WATCHED_S = 200.0, 120.0


@dataclass(frozen=True)
class Share:
    """The trainer's share, a second in the mean, and beacons in the worst second."""

    peers: int
    every_s: float  # between two beacons of a peer, in the mean
    beacons: float
    most_beacons: int
    records: float  # that it reads in the directory
    words: float  # that it says
    cpu: float  # seconds of the processor in its core
    fenced: int


def measure(peers: int) -> Share:
    """Play a swarm of so many."""
    world = World((0,), seed=1, needed=(peers + 1,), is_checked=False)
    for _ in range(peers):
        world.spawn(0, after_s=world.rng.uniform(0, COME_S))
    beacons: Counter[int] = Counter()
    core = world.trainer.process.core
    decide, counts, spent = core.handle, Counter[str](), 0.0

    def handle(event: Event, now: float) -> list[Instruction]:
        nonlocal spent
        began = time.process_time()
        instructions: list[Instruction] = decide(event, now)
        spent += time.process_time() - began
        match event:
            case Received(_, Beacon()):
                beacons[int(now)] += 1
            case PeersSeen(_, seen):
                counts["records"] += len(seen)
        counts["words"] += sum(isinstance(one, Send) for one in instructions)
        return instructions

    while world.clock.now < SETTLED_S:
        world.clock.step()
    core.handle = handle  # type: ignore[method-assign]  # to look on
    while world.clock.now < SETTLED_S + WATCHED_S:
        world.clock.step()
    heard = beacons.total()
    return Share(
        peers,
        peers * WATCHED_S / heard,
        heard / WATCHED_S,
        max(beacons.values()),
        counts["records"] / WATCHED_S,
        counts["words"] / WATCHED_S,
        spent / WATCHED_S,
        len(world.disk.fenced),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m swarmrt.lab.bench.crowd", description=__doc__)
    parser.add_argument("peers", type=int, nargs="+", help="swarms of so many")
    print("| peers | between beacons | beacons/s | in the worst second | records/s | words/s "
          "| processor | fenced |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for peers in parser.parse_args().peers:
        its = measure(peers)
        print(
            f"| {its.peers:,} | {its.every_s:.1f} s | {its.beacons:.0f} | {its.most_beacons} "
            f"| {its.records:.0f} | {its.words:.0f} | {its.cpu:.1%} | {its.fenced} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
