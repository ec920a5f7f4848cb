"""The work that a replica has done by itself between two versions."""

from __future__ import annotations

from typing import NamedTuple


class LocalWork(NamedTuple):
    steps: int  # of the optimizer, its own
    late: float  # share of backwards that ran on weights which were no longer the newest
    drift: float  # norm of what its weights differ from the version by, beside that of the version


NO_LOCAL_WORK = LocalWork(0, 0.0, 0.0)
MOST_DRIFT = 1e9  # weights that differ by more have nothing of the version any more
