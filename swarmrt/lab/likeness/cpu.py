"""The machine's share in what a run reached: whether its CPU was the limit.

What a simulation knows nothing of is that processes wait for a core. They wait where one machine
has too many of them, or other work: then computing, and all that is between, takes longer the more
there is to do, and no scenario is like that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from swarmrt.observe.log import read_entries

MOST_WAITED = 0.1  # of the time in which devices computed
MOST_BUSY = 0.85  # of the cores, by processes of the run alone: where the system tells no waiting


@dataclass(frozen=True)
class Cpu:
    """The CPU of a run's processes, in its measured time."""

    busy_share: float | None  # of the cores that they may use; None where no vitals tell
    waited_share: float | None  # of the time in which devices computed, waited for a core

    @property
    def is_limit(self) -> bool:
        return (self.waited_share or 0.0) > MOST_WAITED or (self.busy_share or 0.0) > MOST_BUSY

    def __str__(self) -> str:
        if self.busy_share is None:
            return "not told by these logs"
        waited = "" if self.waited_share is None else f", waited for: {self.waited_share:.0%}"
        return f"{self.busy_share:.0%} of the cores{waited} of the time that was computed"


def cpu_of(run_dir: Path, begins: float, ends: float, computed_s: float) -> Cpu:
    """Return what the vitals of a run's processes tell of the time between two times of day, in
    which devices have computed for so long."""
    seconds = cpu_s = waited_s = 0.0
    cores, tells_waiting = 0, False
    for path in [run_dir / "trainer" / "vitals.jsonl", *run_dir.glob("peers/**/vitals.jsonl")]:
        if not path.exists():
            continue
        lines = [one for one in read_entries(path) if begins <= one.get("time", 0.0) <= ends]
        for before, after in pairwise(lines):
            used_s = _between(before, after, "cpu_s")
            if used_s is None:
                continue
            cpu_s += used_s
            cores = max(cores, int(after.get("cores", 0)))
            more_s = _between(before, after, "waited_s")
            tells_waiting |= more_s is not None
            waited_s += more_s or 0.0
        seconds = max(seconds, _length(lines))
    if not (seconds and cores):
        return Cpu(None, None)
    waited = waited_s / computed_s if tells_waiting and computed_s else None
    return Cpu(cpu_s / (seconds * cores), waited)


def _length(lines: Sequence[dict[str, Any]]) -> float:
    return float(lines[-1]["time"] - lines[0]["time"]) if lines else 0.0


def _between(before: dict[str, Any], after: dict[str, Any], key: str) -> float | None:
    """Return by how much a sum has grown; None where it is not told, or was begun anew."""
    one, other = before.get(key), after.get(key)
    if one is None or other is None or other < one:
        return None
    return float(other - one)
