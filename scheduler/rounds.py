"""One round of a stage's reduce: a deterministic butterfly.

The flat gradient is cut into as many parts as the roster has members. Member i owns part i: it
gets that slice of every contributor, adds them in roster order, divides by the step's tokens, and
sends the same bytes to everyone, itself included. So all replicas hold equal bits. A member that
accumulated nothing sends no slices, but owns a part like the others.
"""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import Part, Prepare
from swarmrt.scheduler.instructions import (
    CombineParts,
    GradientPart,
    Instruction,
    Send,
    SumPart,
)


class Round:
    """Feed it the parts as they come; it says when to sum, to send and to combine."""

    def __init__(self, me: PeerId, prepare: Prepare) -> None:
        self.prepare = prepare
        self.members = tuple(peer for peer, _ in prepare.roster)
        self.contributors = tuple(peer for peer, indices in prepare.roster if indices)
        self.combined: tuple[str, float] | None = None  # digest, squared norm
        self._me = me
        self._index = self.members.index(me)
        self._awaited_slices = set(self.contributors) - {me}
        self._awaited_sums = set(range(len(self.members)))

    @property
    def key(self) -> tuple[int, int]:
        return self.prepare.step, self.prepare.round

    def start(self) -> list[Instruction]:
        """Send every owner its slice of this peer's gradients."""
        sends: list[Instruction] = []
        if self._me in self.contributors:
            for index, member in enumerate(self.members):
                if member != self._me:
                    sends.append(self._send(member, index, summed=False))
        return sends + self._sum_when_ready()

    def part_arrived(self, sender: PeerId, part: Part) -> list[Instruction]:
        """A slice for this peer's part, or another owner's sum."""
        if part.summed:
            if part.index < len(self.members) and self.members[part.index] == sender:
                return self._sum_arrived(part.index)
            return []
        if part.index == self._index and sender in self._awaited_slices:
            self._awaited_slices.remove(sender)
            return self._sum_when_ready()
        return []

    def part_summed(self) -> list[Instruction]:
        """This peer's own part is added up: give it to everyone."""
        sends: list[Instruction] = [
            self._send(member, self._index, summed=True)
            for member in self.members
            if member != self._me
        ]
        return sends + self._sum_arrived(self._index)

    def _sum_when_ready(self) -> list[Instruction]:
        if self._awaited_slices:
            return []
        step, number = self.key
        return [
            SumPart(step, number, self._index, self.members, self.contributors, self.prepare.tokens)
        ]

    def _sum_arrived(self, index: int) -> list[Instruction]:
        if index not in self._awaited_sums:
            return []
        self._awaited_sums.remove(index)
        if self._awaited_sums:
            return []
        return [CombineParts(*self.key, len(self.members))]

    def _send(self, to: PeerId, index: int, *, summed: bool) -> Send:
        part = Part(*self.key, index, summed)
        return Send(to, part, GradientPart(index, len(self.members), summed))
