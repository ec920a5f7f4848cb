"""Microbatches that replicas could not compute, and when that is the run's own fault.

Rules:
- One replica's word ends nothing: another one tries.
- When two replicas of a stage have failed with the same microbatch, or its only one a few times,
  trying again does not help.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from swarmrt.ids import MicrobatchId, PeerId

TRIES_ALONE = 4  # of a stage's only replica: the next attempt may come another way


class Failures:
    def __init__(self) -> None:
        self._failed: dict[tuple[MicrobatchId, int], Counter[PeerId]] = {}

    def add(
        self, microbatch: MicrobatchId, stage: int, peer: PeerId, replicas: Collection[PeerId]
    ) -> bool:
        """One more. Whether it is hopeless, with these replicas of the stage."""
        failed = self._failed.setdefault((microbatch, stage), Counter())
        failed[peer] += 1
        alone = set(replicas) <= {peer}
        return len(failed) > 1 or (alone and failed[peer] >= TRIES_ALONE)

    def peers(self, microbatch: MicrobatchId, stage: int) -> str:
        """For people: who failed."""
        return ", ".join(sorted(self._failed[microbatch, stage]))

    def drop(self, version: int) -> None:
        """The steps before this version are over."""
        self._failed = {key: c for key, c in self._failed.items() if key[0].step >= version}
