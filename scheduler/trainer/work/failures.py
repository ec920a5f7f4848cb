"""Microbatches that replicas could not compute, and when that is the run's own fault.

Rules:
- One replica's word ends nothing: another one tries.
- One failure of anybody's says nothing: a device may be short of memory for a moment.
- Whoever gave them the gradient may be at fault: it is tried without that one first.
- When two replicas of a stage have failed twice in the same computation of a microbatch, or its
  only one a few times, trying again does not help. Nor does it when they have failed a little more
  often with whatever they were given, and nothing was computed there meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from swarmrt.ids import MicrobatchId, SeatId
from swarmrt.messages import FailedIn, Released

TRIES = 2  # of a replica, beside another one that failed as often
TRIES_ALONE = 4  # of a stage's only replica: the next attempt may come another way
MORE = 1.5  # times as many, with any microbatches


class Failures:
    def __init__(self) -> None:
        self._failed: dict[tuple[MicrobatchId, int, FailedIn], Counter[SeatId]] = {}
        self._in_a_row: dict[tuple[int, FailedIn], Counter[SeatId]] = {}

    def add(
        self, released: Released, stage: int, peer: SeatId, replicas: Collection[SeatId]
    ) -> bool:
        """Count one more, and say whether it is hopeless, with these replicas of the stage."""
        key = (released.microbatch, stage, released.failed)
        failed = self._failed.setdefault(key, Counter())
        in_a_row = self._in_a_row.setdefault(key[1:], Counter())
        failed[peer] += 1
        in_a_row[peer] += 1
        alone = set(replicas) <= {peer}
        if alone and (failed[peer] >= TRIES_ALONE or in_a_row[peer] >= TRIES_ALONE * MORE):
            return True
        return _are_two(failed, TRIES) or _are_two(in_a_row, TRIES * MORE)

    def worked(self, stage: int) -> None:
        """Note that something was computed at this stage."""
        if self._in_a_row:
            self._in_a_row = {key: c for key, c in self._in_a_row.items() if key[0] != stage}

    def peers(self, released: Released, stage: int) -> str:
        """Return who failed, for people."""
        return ", ".join(sorted(self._failed[released.microbatch, stage, released.failed]))

    def forgive(self, released: Released, stage: int) -> None:
        """Forget who failed with it: it will be computed from what somebody else gives."""
        self._failed.pop((released.microbatch, stage, released.failed), None)
        self._in_a_row.pop((stage, released.failed), None)

    def drop(self, version: int) -> None:
        """Forget the steps before this version, which are over."""
        self._failed = {key: c for key, c in self._failed.items() if key[0].commits_in >= version}


def _are_two(failed: Counter[SeatId], times: float) -> bool:
    """Return whether two replicas have failed so often."""
    return sum(number >= times for number in failed.values()) > 1
