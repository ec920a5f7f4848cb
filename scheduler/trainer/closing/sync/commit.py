"""The second phase of a commit: a version that is being applied.

Rules:
- It is committed once every live replica that was told to apply it has said so.
- Replicas of a stage say the same. Who does not is done without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from swarmrt.ids import SeatId
from swarmrt.messages import Apply
from swarmrt.scheduler.instructions import ReportStep
from swarmrt.scheduler.local_work import LocalWork
from swarmrt.scheduler.trainer.agreeing import odd_ones

Digests = tuple[tuple[tuple[SeatId, str], ...], ...]  # by stage, in roster order


@dataclass(slots=True)
class Commit:
    version: int
    num_stages: int
    expected: dict[SeatId, int]  # peer → stage
    apply: Apply
    agreed: tuple[str, ...]  # digests of what is applied, by stage
    copied_stages: frozenset[int]  # whose replicas keep a snapshot of it
    loss: float
    tokens: int
    seconds: float
    checkpoint: bool
    skipped: bool = False
    microbatches: int = 0  # of its step; 0 where all steps have as many
    patience_s: dict[SeatId, float] = field(default_factory=dict)  # before each is asked again
    retries: int = 0
    in_vain: int = 0  # of these, since somebody last answered late
    applied: dict[SeatId, str] = field(default_factory=dict)  # peer → digest
    local: dict[SeatId, LocalWork] = field(default_factory=dict)  # of those who have applied it

    def is_copied_by(self, peer: SeatId) -> bool:
        """Return whether this replica keeps a snapshot of it."""
        return self.expected.get(peer) in self.copied_stages

    def apply_at(self, stage: int) -> Apply:
        """Return what replicas of a stage, and newcomers that follow it, are told."""
        is_copied = stage in self.copied_stages
        return replace(self.apply, snapshot=is_copied, digest=self.agreed[stage])

    def without(self, peer: SeatId) -> None:
        """The dead are not waited for."""
        self.expected.pop(peer, None)
        self.applied.pop(peer, None)

    def missing(self) -> list[SeatId]:
        return [peer for peer in self.expected if peer not in self.applied]

    @property
    def is_whole(self) -> bool:
        return len(self.applied) == len(self.expected)

    @property
    def digests(self) -> Digests:
        return tuple(
            tuple(
                (peer, self.applied[peer])
                for peer, its_stage in sorted(self.expected.items())
                if its_stage == stage
            )
            for stage in range(self.num_stages)
        )

    def odd_ones(self, trust: Callable[[SeatId], Any]) -> list[SeatId]:
        """Return who has come to other weights than the others of its stage."""
        return [peer for replicas in self.digests for peer in odd_ones(dict(replicas), trust)]

    def suspects(self) -> list[SeatId]:
        """Return who is waited for, and could be done without: another of its stage has applied it.
        Where nobody has, it may take long; none of them waits for another one."""
        done = {stage for peer, stage in self.expected.items() if peer in self.applied}
        return [peer for peer in self.missing() if self.expected[peer] in done]

    def report(self) -> ReportStep:
        digests = self.digests
        equal = all(len({digest for _, digest in replicas}) <= 1 for replicas in digests)
        return ReportStep(
            self.version,
            self.loss,
            self.tokens,
            self.apply.norm,
            self.seconds,
            digests,
            equal,
            self.skipped,
            self._local_work(),
            self.microbatches,
        )

    def _local_work(self) -> tuple[LocalWork, ...]:
        """Return what replicas have done by themselves, by stage; nothing where none has."""
        if not any(work.steps for work in self.local.values()):
            return ()
        return tuple(
            _together([self.local[peer] for peer, _ in replicas]) for replicas in self.digests
        )


def _together(works: list[LocalWork]) -> LocalWork:
    """Return all steps of some replicas, what share of these was late, and the furthest drift."""
    steps = sum(work.steps for work in works)
    late = sum(work.steps * work.late for work in works)
    drift = max((work.drift for work in works), default=0.0)
    return LocalWork(steps, late / steps if steps else 0.0, drift)
