"""A commit after Apply: which live replicas have said that they hold the new version."""

from __future__ import annotations

from dataclasses import dataclass, field

from swarmrt.ids import PeerId
from swarmrt.scheduler.instructions import ReportStep

Digests = tuple[tuple[tuple[PeerId, str], ...], ...]  # by stage, in roster order


@dataclass(slots=True)
class Commit:
    version: int
    num_stages: int
    expected: dict[PeerId, int]  # peer → stage
    loss: float
    tokens: int
    norm: float
    seconds: float
    snapshot: bool  # whether the replicas keep a snapshot of it
    checkpoint: bool
    applied: dict[PeerId, str] = field(default_factory=dict)  # peer → digest

    def without(self, peer: PeerId) -> None:
        """The dead are not waited for."""
        self.expected.pop(peer, None)
        self.applied.pop(peer, None)

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

    def report(self) -> ReportStep:
        digests = self.digests
        equal = all(len({digest for _, digest in replicas}) <= 1 for replicas in digests)
        return ReportStep(
            self.version, self.loss, self.tokens, self.norm, self.seconds, digests, equal
        )
