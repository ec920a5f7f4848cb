"""The facts that a placement is made of: what stages cost, and what peers and links can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Matrix = tuple[tuple[float, ...], ...]  # a row for each peer

Placement = tuple[tuple[int, ...], ...]
"""For each stage the peers that serve it, by their numbers; who is in none is left out."""


@dataclass(frozen=True)
class StageCost:
    compute_s: float  # forward and backward of a microbatch, at speed 1
    output_bytes: float  # of a microbatch, to the next stage; as many come back
    gradient_bytes: float  # as they travel
    memory_bytes: float  # that a peer needs


@dataclass(frozen=True)
class Job:
    stages: tuple[StageCost, ...]
    microbatches: int  # in a step
    overlaps: bool = False  # a step's reduce with the computing of the next one (staleness 1)
    reduce: Literal["serial", "parallel"] = "serial"  # a peer's slices: one after the other, or not


@dataclass(frozen=True)
class Network:
    """Peers and the links between them: `delay_s[p][q]` is one-way, `bytes_per_s[p][q]` from p to
    q."""

    names: tuple[str, ...]
    speeds: tuple[float, ...]  # beside the machine whose seconds `Job` has
    memory_bytes: tuple[float, ...]
    delay_s: Matrix
    bytes_per_s: Matrix

    def fits(self, job: Job, peer: int, stage: int) -> bool:
        """Return whether a stage fits into a peer's memory."""
        return self.memory_bytes[peer] >= job.stages[stage].memory_bytes
