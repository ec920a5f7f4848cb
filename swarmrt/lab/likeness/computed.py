"""The computing of a seat, as its log has it.

A computation counts from when it was handed over, or from when the device was done with the one
before, until its end was known. So what the runtime around it takes is in it.
"""

from __future__ import annotations

import statistics
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

from swarmrt.scheduler.events import (
    BackwardDone,
    Contributed,
    Event,
    ForwardDone,
    Stepped,
    WeightGradientsDone,
)
from swarmrt.scheduler.instructions import (
    Contribute,
    Instruction,
    RunBackward,
    RunForward,
    RunWeightGradients,
    StepOptimizer,
)
from swarmrt.scheduler.recording import Record

What = Literal["forward", "backward", "weights", "contribution", "update"]
UPDATES: tuple[What, ...] = ("contribution", "update")


@dataclass
class Computed:
    """The computations of a seat in some time. Feed it the records of its log in order."""

    seconds: dict[What, list[float]] = field(default_factory=dict)
    _trained: int = 0  # microbatches, by their backwards
    _asked_at: dict[Hashable, float] = field(default_factory=dict)
    _free_at: float = 0.0

    def add(self, record: Record, now: float) -> None:
        done = _done(record.event)
        if done is not None:
            what, key = done
            asked_at = self._asked_at.pop((what, key), None)
            if asked_at is not None:
                self.seconds.setdefault(what, []).append(now - max(asked_at, self._free_at))
                self._trained += what == "backward"
            self._free_at = now
        for instruction in record.instructions:
            asked = _asked(instruction)
            if asked is not None:
                self._asked_at[asked] = now

    @property
    def busy_s(self) -> float:
        return sum(map(sum, self.seconds.values()))

    def service_s(self, *, with_updates: bool) -> float:
        """Return what a microbatch takes, with its part of what is only evaluated, and of updates
        where those keep the next step waiting; 0 if it has computed none."""
        if not self._trained:
            return 0.0
        parts = (s for what, s in self.seconds.items() if with_updates or what not in UPDATES)
        return sum(map(sum, parts)) / self._trained

    @property
    def noise(self) -> float:
        """Return the deviation of a forward or backward, as a share of its mean."""
        shares = [
            statistics.pstdev(times) / mean
            for what in ("forward", "backward")
            if (times := self.seconds.get(what)) and (mean := statistics.fmean(times)) > 0
        ]
        return min(1.0, statistics.fmean(shares)) if shares else 0.0


def _done(event: Event) -> tuple[What, Hashable] | None:
    match event:
        case ForwardDone(microbatch=microbatch):
            return "forward", microbatch
        case BackwardDone(microbatch=microbatch):
            return "backward", microbatch
        case WeightGradientsDone(microbatch=microbatch):
            return "weights", microbatch
        case Contributed(round=number):
            return "contribution", number
        case Stepped():
            return "update", None
    return None


def _asked(instruction: Instruction) -> tuple[What, Hashable] | None:
    match instruction:
        case RunForward(microbatch=microbatch):
            return "forward", microbatch
        case RunBackward(microbatch=microbatch):
            return "backward", microbatch
        case RunWeightGradients(microbatch=microbatch):
            return "weights", microbatch
        case Contribute(round=number):
            return "contribution", number
        case StepOptimizer():
            return "update", None
    return None
