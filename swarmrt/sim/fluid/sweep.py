"""Sweeps: many simulations over a pool of processes, as rows that a data frame takes.

rows = sweep([Job(scene, "swarmrt", seed) for seed in range(10)], processes=4)
pandas.DataFrame(rows).groupby("policy").throughput_over_oracle.mean()
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

from swarmrt.sim.fidelity import simulate
from swarmrt.sim.fluid.scene import Scene


@dataclass(frozen=True, slots=True)
class Job:
    """A simulation of a sweep. Its labels come back in its row."""

    scene: Scene
    policy: str
    seed: int = 0
    labels: dict[str, Any] = field(default_factory=dict)
    fidelity: str = "fluid"


def sweep(
    jobs: Iterable[Job], *, processes: int = 1, progress: bool = False
) -> list[dict[str, Any]]:
    """Return a row for each job, in order, however many processes there are."""
    listed = list(jobs)
    rows = []
    for number, row in enumerate(_rows(listed, processes), start=1):
        rows.append(row)
        if progress:
            end = "\n" if number == len(listed) else ""
            done = f"\r{number} of {len(listed)} simulations"
            print(done, end=end, file=sys.stderr, flush=True)
    return rows


def _rows(jobs: list[Job], processes: int) -> Iterator[dict[str, Any]]:
    if processes == 1:
        yield from map(_row, jobs)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_row, jobs)


def _row(job: Job) -> dict[str, Any]:
    result = simulate(job.scene, job.policy, job.seed, fidelity=job.fidelity)
    return job.labels | result.row()
