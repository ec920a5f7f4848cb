"""The accounts of a run: what was granted in each stage, and what has become of it.

granted = applied + dropped + in flight, and nothing is lost. Applied is what the rosters of
versions have, dropped what was of a step that is skipped, in flight what is of a step that no
version has yet. A step that is done again, as the run went back, counts once.

Where rounds are about a part of the parameters in turn, a replica that misses one before all have
had their turn, or is taken back to a version by another trainer's epoch, has lost what it moved in
the others: what it had accumulated is applied in part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Roster

Granted = tuple[int, int]  # step, index


@dataclass(frozen=True)
class Account:
    """The account of a stage, in microbatches."""

    stage: int
    granted: int
    applied: int
    lost: int  # granted, of a step that a version has, and not in it
    dropped: int
    in_flight: int
    never_granted: int  # and applied
    in_part: int = 0  # applied, of replicas that were gone before all parameters had their turn

    def __str__(self) -> str:
        in_part = f" ({self.in_part} in part)" if self.in_part else ""
        parts = (
            f"{self.applied} applied{in_part}",
            f"{self.lost} lost",
            f"{self.dropped} dropped",
            f"{self.in_flight} in flight",
        )
        return f"stage {self.stage}: {self.granted} granted = {' + '.join(parts)}"

    def faults(self) -> Iterator[str]:
        if self.lost:
            yield f"stage {self.stage}: {self.lost} gradients were granted, and are in no version"
        if self.never_granted:
            yield f"stage {self.stage}: {self.never_granted} gradients were never granted"


class Accounts:
    def __init__(self) -> None:
        self._granted: dict[int, set[Granted]] = {}  # by stage

    def granted(self, microbatch: MicrobatchId, need: tuple[int, ...]) -> None:
        """Take note that these stages are to accumulate it."""
        for stage in need:
            self._granted.setdefault(stage, set()).add((microbatch.step, microbatch.index))

    def back_to(self, version: int) -> None:
        """Forget what is done again."""
        for stage, granted in self._granted.items():
            self._granted[stage] = {one for one in granted if one[0] < version}

    def of_stage(
        self,
        stage: int,
        versions: Mapping[int, Roster],
        skipped: set[int],
        local_from: int,
        turns: int,
    ) -> Account:
        """Return the account of a stage: `versions` has its roster of each, some steps are
        `skipped`, and from step `local_from` on every parameter is in one of `turns` rounds."""
        granted = self._granted.get(stage, set())
        applied = {
            (version - 1, index)
            for version, roster in versions.items()
            for _, indices in roster
            for index in indices
        }
        left = granted - applied
        dropped = sum(step in skipped for step, _ in left)
        lost = sum(step + 1 in versions and step not in skipped for step, _ in left)
        return Account(
            stage,
            len(granted),
            len(granted & applied),
            lost,
            dropped,
            len(left) - dropped - lost,
            len(applied - granted),
            _in_part({v: r for v, r in versions.items() if v > local_from}, turns),
        )


def _in_part(versions: Mapping[int, Roster], turns: int) -> int:
    """Return how many were accumulated by who has missed one of the rounds that were to come."""
    everybody = {peer for roster in versions.values() for peer, _ in roster}
    missed: dict[PeerId, int] = {}  # the next version that a replica had no part in
    number = 0
    for version, roster in sorted(versions.items(), reverse=True):
        gone = [(peer, indices) for peer, indices in roster if peer in missed]
        number += sum(len(indices) for peer, indices in gone if missed[peer] < version + turns)
        for peer in everybody.difference(peer for peer, _ in roster):
            missed[peer] = version
    return number
