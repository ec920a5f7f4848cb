"""The version at which a new trainer incarnation goes on: from what the live peers hold, or from
the last checkpoint.

A stage can go on at a version that a replica has, or that a replica has prepared when another
peer has already applied it: no stage applies before all are prepared, so the others may follow.

Peers may say anything. A version counts that can be: not beyond the run's last one, made in an
earlier epoch, of the weights that are known. And a newer one does not win by the word of few: in
every stage at least half of those that hold anything say so. Where they are as many as the others,
one that is further from the checkpoint than checkpoints are from each other does not win.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from swarmrt.messages import Beacon

EPOCH_BITS = 32  # of a round's number: those below them count the rounds of an incarnation
INTERVALS = 2  # between checkpoints, and some steps, may pass while one is written
STEPS = 8


class Checkpointed(NamedTuple):
    """The newest checkpoint that the run folder has."""

    version: int
    digests: tuple[str, ...]  # of the parameters, by stage; empty where not known
    every: int  # versions; 0 keeps only the last one


@dataclass(frozen=True)
class Plan:
    version: int
    is_live: bool  # held by the peers; else it is the checkpoint's
    round: int  # of the update that made it, for those that have it prepared; -1 if unknown
    norm: float
    digests: tuple[str, ...]  # of its parameters, by stage; empty where not known


def choose_version(
    holdings: Iterable[Beacon], checkpoint: Checkpointed, epoch: int, last_version: int
) -> Plan:
    """The newest version that every stage can go on at, not older than the checkpoint.

    A version is known by the round of the update that made it: what was made before a rollback
    may have the same number, and other weights. `epoch` is the new incarnation's.
    """
    held = [beacon for beacon in holdings if _can_be(beacon, checkpoint, last_version)]
    num_stages = len(checkpoint.digests)
    stages = [[beacon for beacon in held if beacon.stage == stage] for stage in range(num_stages)]
    made = {(beacon.version, beacon.applied) for beacon in held}
    plans = [
        (_share(stages, version, applied), version, applied)
        for version, applied in made
        if 0 <= applied < epoch << EPOCH_BITS
    ]
    expected = checkpoint.version + INTERVALS * checkpoint.every + STEPS
    furthest = expected if checkpoint.every else math.inf
    possible = [
        (share >= 0.5, version <= furthest or share > 0.5, version, share, applied)
        for share, version, applied in plans
        if share
    ]
    if not possible:
        return Plan(checkpoint.version, False, -1, 0.0, checkpoint.digests)
    _, _, version, _, applied = max(possible)
    return _plan(held, num_stages, version, applied)


def _can_be(beacon: Beacon, checkpoint: Checkpointed, last_version: int) -> bool:
    """Return whether a peer may hold that, and it is more than what it has started with."""
    if max(beacon.applied, beacon.prepared) < 0:
        return False
    if not beacon.digest or not checkpoint.version - 1 <= beacon.version <= last_version:
        return False
    if not 0 <= beacon.stage < len(checkpoint.digests):
        return False
    known = checkpoint.digests[beacon.stage]
    return not (known and beacon.version == checkpoint.version) or beacon.digest == known


def _share(stages: Sequence[Sequence[Beacon]], version: int, applied: int) -> float:
    """Return the share of holders who can go on there: the least that it is in any stage."""
    return min(
        sum(_can_go_on(beacon, version, applied) for beacon in held) / max(1, len(held))
        for held in stages
    )


def _can_go_on(beacon: Beacon, version: int, applied: int) -> bool:
    if beacon.version == version:
        return beacon.applied == applied
    return beacon.version == version - 1 and beacon.prepared == applied


def _plan(held: Sequence[Beacon], num_stages: int, version: int, applied: int) -> Plan:
    holders = [b for b in held if (b.version, b.applied) == (version, applied)]
    norm = Counter(beacon.norm for beacon in holders).most_common(1)[0][0]
    digests = []
    for stage in range(num_stages):
        words = Counter(b.digest for b in holders if b.stage == stage).most_common(2)
        is_clear = len(words) == 1 or (len(words) > 1 and words[0][1] > words[1][1])
        digests.append(words[0][0] if is_clear else "")
    return Plan(version, True, applied, norm, tuple(digests))
