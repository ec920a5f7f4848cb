"""The ledger of one step: which route owns each microbatch, and who has accumulated it.

Rules:
- A microbatch is granted to the first route that claims it, and to no other.
- A receipt counts once, and only from the owner of that (microbatch, stage).
- The step is complete when every (microbatch, stage) has its receipt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from swarmrt.ids import PeerId, Work
from swarmrt.messages import Claim, Roster


@dataclass(slots=True)
class Entry:
    """A granted microbatch."""

    work: Work
    route: tuple[PeerId, ...]  # owners by stage
    loss_sum: float
    tokens: int
    accumulated: set[int] = field(default_factory=set)  # stages


class Ledger:
    def __init__(self, step: int, microbatches: int, num_stages: int) -> None:
        self.step = step
        self.microbatches = microbatches
        self.num_stages = num_stages
        self._entries: dict[int, Entry] = {}

    def claim(self, claim: Claim) -> bool:
        """Whether this route may run backward. Asked again, it gives the same answer."""
        index = claim.work.microbatch.index
        entry = self._entries.get(index)
        if entry is None:
            self._entries[index] = Entry(claim.work, claim.route, claim.loss_sum, claim.tokens)
            return True
        return entry.work == claim.work and entry.route == claim.route

    def receipt(self, peer: PeerId, work: Work, stage: int) -> bool:
        """Book a receipt. False when it is not from the owner of a granted attempt."""
        entry = self._entries.get(work.microbatch.index)
        if entry is None or entry.work != work or not 0 <= stage < self.num_stages:
            return False
        if entry.route[stage] != peer:
            return False
        entry.accumulated.add(stage)
        return True

    def is_granted(self, index: int) -> bool:
        return index in self._entries

    def is_finished(self, index: int) -> bool:
        entry = self._entries.get(index)
        return entry is not None and len(entry.accumulated) == self.num_stages

    @property
    def complete(self) -> bool:
        return len(self._entries) == self.microbatches and all(
            len(entry.accumulated) == self.num_stages for entry in self._entries.values()
        )

    def missing(self) -> list[tuple[int, int]]:
        """(microbatch index, stage) pairs that have no receipt yet."""
        return [
            (index, stage)
            for index in range(self.microbatches)
            for stage in range(self.num_stages)
            if index not in self._entries or stage not in self._entries[index].accumulated
        ]

    def roster(self, stage: int, members: Iterable[PeerId]) -> Roster:
        """For each member of the stage, sorted, the microbatches that it accumulated."""
        owned: dict[PeerId, list[int]] = {member: [] for member in sorted(members)}
        for index, entry in sorted(self._entries.items()):
            owned[entry.route[stage]].append(index)
        return tuple((peer, tuple(indices)) for peer, indices in owned.items())

    @property
    def tokens(self) -> int:
        return sum(entry.tokens for entry in self._entries.values())

    @property
    def loss(self) -> float:
        """Nats a token over the granted microbatches, in the order of their indices."""
        total = sum(self._entries[index].loss_sum for index in sorted(self._entries))
        return total / max(1, self.tokens)

    def validate(self) -> None:
        for index, entry in self._entries.items():
            assert 0 <= index < self.microbatches
            assert entry.work.microbatch.index == index
            assert entry.work.microbatch.step == self.step
            assert len(entry.route) == self.num_stages
            assert entry.accumulated <= set(range(self.num_stages))
