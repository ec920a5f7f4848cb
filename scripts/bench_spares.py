"""Bench spares: how far apart commits are with and without one, in simulated swarms.

A stage with one replica, behind each kind of link, gets a spare behind such a link; gradients are
of three sizes. Apply is held until the spare has the sums. Time is virtual: equal everywhere.

    .venv/bin/python scripts/bench_spares.py
"""

from __future__ import annotations

import statistics

from swarmrt.ids import PeerId
from swarmrt.sim.engine.links import MACHINE_ROOM, Link, Sizes
from swarmrt.sim.schedules.hardships import CABLE, FIBRE, HOME
from swarmrt.sim.swarm.world import World

LINKS = {"home": HOME, "cable": CABLE, "fibre": FIBRE, "machine room": MACHINE_ROOM}
GRADIENTS_BYTES = (100_000, 1_000_000, 3_000_000)
SEEDS, STEPS, WARM_UP = 3, 16, 5


def commit_s(link: Link, gradient_bytes: int, staleness: int, spares: int) -> float:
    """Return the mean seconds between two commits, once links are measured."""
    gaps_s: list[float] = []
    for seed in range(SEEDS):
        world = World(
            (2, 1),
            seed,
            spares=(0, spares),
            steps=STEPS,
            service_s=(0.1, 0.1),
            staleness=staleness,
            eval_every=0,
            checkpoint_every=0,
            sizes=Sizes(3 * gradient_bytes, gradient_bytes, activation_bytes=1000),
            links={PeerId("s1p0"): link, PeerId("s1p1"): link},
        )
        world.run()
        at = world.disk.committed_at[WARM_UP:]
        gaps_s += [later - earlier for earlier, later in zip(at, at[1:], strict=False)]
    return statistics.mean(gaps_s)


def main() -> None:
    for name, link in LINKS.items():
        for gradient_bytes in GRADIENTS_BYTES:
            for staleness in (0, 1):
                without_s = commit_s(link, gradient_bytes, staleness, 0)
                with_s = commit_s(link, gradient_bytes, staleness, 1)
                print(
                    f"{name:<13} gradient {gradient_bytes / link.up_bytes_per_s:5.2f} s  "
                    f"staleness {staleness}  a commit each {without_s:.2f} s, with a spare "
                    f"{with_s:.2f} s ({with_s / without_s - 1:+.0%})"
                )


if __name__ == "__main__":
    main()
