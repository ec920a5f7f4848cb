"""One round of a stage's reduce: a deterministic butterfly.

The flat gradient is cut into equal parts, as many for each member of the roster, so that no
message is too large. Part i belongs to member i modulo their number: it gets that slice of every
contributor, adds them in roster order, divides by the step's tokens, and sends the same bytes to
everyone, itself included. So all replicas hold equal bits. A member that accumulated nothing
sends no slices, but owns parts like the others.
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

MAX_PART_BYTES = 32 << 20  # well under what a receiver takes, and several fill a link


class Round:
    """Feed it the parts as they come; it says when to sum, to send and to combine."""

    def __init__(self, me: PeerId, prepare: Prepare, gradient_bytes: int) -> None:
        self.prepare = prepare
        self.members = tuple(peer for peer, _ in prepare.roster)
        self.contributors = tuple(peer for peer, indices in prepare.roster if indices)
        self.combined: tuple[str, float] | None = None  # digest, squared norm
        number = len(self.members)
        self.parts = number * max(1, -(-gradient_bytes // (number * MAX_PART_BYTES)))
        self._me = me
        mine = range(self.members.index(me), self.parts, number)
        self._awaited_slices = {part: set(self.contributors) - {me} for part in mine}
        self._awaited_sums = set(range(self.parts))

    @property
    def key(self) -> tuple[int, int]:
        return self.prepare.step, self.prepare.round

    def owner(self, part: int) -> PeerId:
        return self.members[part % len(self.members)]

    def start(self) -> list[Instruction]:
        """Send every owner its slices of this peer's gradients."""
        sends: list[Instruction] = []
        if self._me in self.contributors:
            sends = [
                self._send(self.owner(part), part, summed=False)
                for part in range(self.parts)
                if self.owner(part) != self._me
            ]
        ready = [part for part, awaited in self._awaited_slices.items() if not awaited]
        return sends + [self._sum(part) for part in ready]

    def part_arrived(self, sender: PeerId, part: Part) -> list[Instruction]:
        """A slice for one of this peer's parts, or another owner's sum."""
        if part.summed:
            is_owners = 0 <= part.index < self.parts and self.owner(part.index) == sender
            return self._sum_arrived(part.index) if is_owners else []
        awaited = self._awaited_slices.get(part.index, set())
        if sender not in awaited:
            return []
        awaited.remove(sender)
        return [] if awaited else [self._sum(part.index)]

    def part_summed(self, part: int) -> list[Instruction]:
        """One of this peer's own parts is added up: give it to everyone."""
        sends: list[Instruction] = [
            self._send(member, part, summed=True) for member in self.members if member != self._me
        ]
        return sends + self._sum_arrived(part)

    def _sum(self, part: int) -> SumPart:
        return SumPart(*self.key, part, self.parts, self.contributors, self.prepare.tokens)

    def _sum_arrived(self, part: int) -> list[Instruction]:
        if part not in self._awaited_sums:
            return []
        self._awaited_sums.remove(part)
        return [] if self._awaited_sums else [CombineParts(*self.key, self.parts)]

    def _send(self, to: PeerId, part: int, *, summed: bool) -> Send:
        message = Part(*self.key, part, summed)
        return Send(to, message, GradientPart(part, self.parts, summed))
