"""At which version a new trainer incarnation goes on: from what the live peers hold, or from the
last checkpoint.

A stage can go on at a version that a replica has, or that a replica has prepared when another
peer has already applied it: no stage applies before all are prepared, so the others may follow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from swarmrt.messages import Beacon


@dataclass(frozen=True)
class Plan:
    version: int
    is_live: bool  # held by the peers; else it is the checkpoint's
    round: int  # of the update that made it, for those that have it prepared; -1 if unknown
    norm: float


def choose_version(holdings: Iterable[Beacon], num_stages: int, checkpoint_version: int) -> Plan:
    """The newest version that every stage can go on at, not older than the checkpoint.

    A version is known by the round of the update that made it: what was made before a rollback
    may have the same number, and other weights.
    """
    held = list(holdings)
    made = {(beacon.version, beacon.applied): beacon.norm for beacon in held if beacon.digest}
    for version, applied in sorted(made, reverse=True):
        if version < checkpoint_version or applied < 0:
            continue
        stages = [
            any(b.stage == stage and _can_go_on(b, version, applied) for b in held)
            for stage in range(num_stages)
        ]
        if all(stages):
            return Plan(version, True, applied, made[version, applied])
    return Plan(checkpoint_version, False, -1, 0.0)


def _can_go_on(beacon: Beacon, version: int, applied: int) -> bool:
    if beacon.version == version:
        return bool(beacon.digest) and beacon.applied == applied
    return beacon.version == version - 1 and beacon.prepared == applied
