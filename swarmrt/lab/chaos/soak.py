"""Soak: play many schedules of faults, and tell the shortest story of each that fails."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial

from swarmrt.sim.schedules import (
    averaging,
    crowds,
    faults,
    hardships,
    moves,
    pauses,
    requests,
    seats,
    spares,
    unlike,
)  # fmt: skip
from swarmrt.sim.schedules.shrinking import shrink

CHUNK = 200  # seeds that one process plays in one go


DRAW = {
    "faults": faults.draw,
    "hardships": hardships.draw,
    "unlike": unlike.draw,
    "seats": seats.draw,
    "spares": spares.draw,
    "averaging": averaging.draw,
    "moves": moves.draw,
    "pauses": pauses.draw,
    "requests": requests.draw,
    "crowds": crowds.draw,
}


def play_seeds(kind: str, seeds: range) -> tuple[Counter[str], list[int]]:
    """Play seeds; return what was covered, and the seeds that failed."""
    covered: Counter[str] = Counter()
    failed = []
    for seed in seeds:
        try:
            covered += faults.play(DRAW[kind](seed)).covered
        except Exception:  # noqa: BLE001 - it is told below, by its seed
            failed.append(seed)
    return covered, failed


def chunks(first: int, number: int) -> Iterator[range]:
    for start in range(first, first + number, CHUNK):
        yield range(start, min(start + CHUNK, first + number))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate_faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--kind", choices=sorted(DRAW), default="faults",
        help="of schedules: faults alone, or links that take time, hangs, and so on, hosts that "
        "round differently, processes with several seats, stages with spares, replicas that "
        "step by themselves, processes that serve where they help most, these with moves that are "
        "asked for, owners who pause peers, or swarms that are large for their trainer",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    options = parser.parse_args()
    started = time.monotonic()
    covered: Counter[str] = Counter()
    failed: list[int] = []
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        parts = chunks(options.first, options.seeds)
        for part, seeds in pool.imap_unordered(partial(play_seeds, options.kind), parts):
            covered += part
            failed += seeds
            for seed in seeds:
                print(f"seed {seed} fails", file=sys.stderr, flush=True)
    minutes = (time.monotonic() - started) / 60
    print(
        f"{options.seeds:,} schedules, seeds {options.first} to "
        f"{options.first + options.seeds - 1}: {len(failed)} failed; "
        f"{options.seeds / minutes:,.0f} schedules a minute"
    )
    for what, count in sorted(covered.items()):
        print(f"  {what:<14}{count:>12,}")
    for seed in sorted(failed)[:5]:
        print(f"\nthe shortest story of seed {seed}:\n{shrink(DRAW[options.kind](seed)).story()}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
