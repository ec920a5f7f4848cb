"""Microbatches that replicas could not compute, and when that is the run's own fault.

Rules:
- One replica's word ends nothing: another one tries.
- One failure of anybody's says nothing: a device may be short of memory for a moment.
- Whoever gave them the gradient may be at fault: it is tried without that one first.
- When two replicas of a stage have failed twice in the same computation of a microbatch, or its
  only one a few times, trying again does not help.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import FailedIn, Released

TRIES = 2  # of a replica, beside another one that failed as often
TRIES_ALONE = 4  # of a stage's only replica: the next attempt may come another way


class Failures:
    def __init__(self) -> None:
        self._failed: dict[tuple[MicrobatchId, int, FailedIn], Counter[PeerId]] = {}

    def add(
        self, released: Released, stage: int, peer: PeerId, replicas: Collection[PeerId]
    ) -> bool:
        """Count one more, and say whether it is hopeless, with these replicas of the stage."""
        key = (released.microbatch, stage, released.failed)
        failed = self._failed.setdefault(key, Counter())
        failed[peer] += 1
        alone = set(replicas) <= {peer}
        again = sum(number >= TRIES for number in failed.values())
        return again > 1 or (alone and failed[peer] >= TRIES_ALONE)

    def peers(self, released: Released, stage: int) -> str:
        """Return who failed, for people."""
        return ", ".join(sorted(self._failed[released.microbatch, stage, released.failed]))

    def forgive(self, released: Released, stage: int) -> None:
        """Forget who failed with it: it will be computed from what somebody else gives."""
        self._failed.pop((released.microbatch, stage, released.failed), None)

    def drop(self, version: int) -> None:
        """Forget the steps before this version, which are over."""
        self._failed = {key: c for key, c in self._failed.items() if key[0].step >= version}
