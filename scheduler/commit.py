"""The trainer's side of a commit: the round that is being prepared, and the version that is being
applied.

Rules:
- A round that misses a member, or is late, is void; the next one has a higher number.
- A version is committed once every live replica that was told to apply it has said so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from swarmrt.ids import PeerId
from swarmrt.messages import Apply, Prepare, Prepared, Roster
from swarmrt.scheduler.instructions import ReportStep

Digests = tuple[tuple[tuple[PeerId, str], ...], ...]  # by stage, in roster order


@dataclass(slots=True)
class Round:
    """A round of Prepare, in all stages at once."""

    epoch: int
    step: int
    number: int
    rosters: tuple[Roster, ...]  # by stage
    listeners: tuple[tuple[PeerId, ...], ...]  # by stage
    tokens: int
    began_at: float
    prepared: dict[PeerId, Prepared] = field(default_factory=dict)

    def prepares(self) -> list[tuple[PeerId, Prepare]]:
        """What to tell everyone who takes part or listens."""
        told = []
        for roster, listeners in zip(self.rosters, self.listeners, strict=True):
            prepare = Prepare(self.epoch, self.step, self.number, roster, listeners, self.tokens)
            told += [(peer, prepare) for peer, _ in roster]
            told += [(peer, prepare) for peer in listeners]
        return told

    @property
    def members(self) -> dict[PeerId, int]:
        """Peer → stage, without listeners."""
        return {peer: stage for stage, roster in enumerate(self.rosters) for peer, _ in roster}

    @property
    def audience(self) -> list[PeerId]:
        return [peer for peer, _ in self.prepares()]

    @property
    def is_whole(self) -> bool:
        return len(self.prepared) == len(self.members)

    def missing(self) -> list[PeerId]:
        return sorted(set(self.members) - set(self.prepared))

    def norm(self) -> float:
        """Of the whole model's mean gradient."""
        return math.sqrt(sum(self.prepared[roster[0][0]].squared_norm for roster in self.rosters))

    def not_finite(self) -> str | None:
        """For people: the first stage whose gradient is not finite, and who accumulated it."""
        for stage, roster in enumerate(self.rosters):
            if any(not math.isfinite(self.prepared[peer].squared_norm) for peer, _ in roster):
                owners = ", ".join(peer for peer, indices in roster if indices)
                return f"stage {stage}, accumulated by {owners}"
        return None

    def differing(self) -> int | None:
        """The first stage whose replicas hold different gradients."""
        for stage, roster in enumerate(self.rosters):
            if len({self.prepared[peer].digest for peer, _ in roster}) > 1:
                return stage
        return None


@dataclass(slots=True)
class Commit:
    version: int
    num_stages: int
    expected: dict[PeerId, int]  # peer → stage
    apply: Apply
    loss: float
    tokens: int
    seconds: float
    checkpoint: bool
    retries: int = 0
    applied: dict[PeerId, str] = field(default_factory=dict)  # peer → digest

    @property
    def snapshot(self) -> bool:
        """Whether the replicas keep a snapshot of it."""
        return self.apply.snapshot

    def without(self, peer: PeerId) -> None:
        """The dead are not waited for."""
        self.expected.pop(peer, None)
        self.applied.pop(peer, None)

    def missing(self) -> list[PeerId]:
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
        )
