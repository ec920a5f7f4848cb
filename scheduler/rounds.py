"""One round of a stage's reduce: a deterministic butterfly.

The flat gradient is cut into equal parts, as many for each member of the roster, so that no
message is too large; a roster of one to which nobody listens sends nothing, and has one part. Part
i belongs to member i modulo their number: it gets that slice of every contributor, adds them in
roster order, divides by the step's tokens, and sends the same bytes to everyone, itself included.
So all replicas hold equal bits. A member that accumulated nothing sends no slices, but owns parts
like the others. Listeners are newcomers: they own no part, and get every sum, so that they can
follow once they have loaded their state.
"""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import Part, Prepare
from swarmrt.scheduler.instructions import (
    GradientPart,
    Instruction,
    Send,
    SumPart,
)

MAX_PART_BYTES = 32 << 20  # well under what a receiver takes, and several fill a link


def parts_each(members: int, gradient_bytes: int) -> int:
    """How many parts of a gradient each member owns."""
    return max(1, -(-gradient_bytes // (members * MAX_PART_BYTES)))


class Round:
    """Feed it the parts as they come; it says when to sum and to send."""

    def __init__(self, me: PeerId, prepare: Prepare, gradient_bytes: int) -> None:
        self.prepare = prepare
        self.members = tuple(peer for peer, _ in prepare.roster)
        self.contributors = tuple(peer for peer, indices in prepare.roster if indices)
        self.is_combining = False
        self.combined: tuple[str, float] | None = None  # digest, squared norm
        number = len(self.members)
        is_alone = number == 1 and not prepare.listeners
        self.parts = 1 if is_alone else number * parts_each(number, gradient_bytes)
        self._me = me
        mine = range(self.members.index(me), self.parts, number) if me in self.members else ()
        self._awaited_slices = {part: set(self.contributors) - {me} for part in mine}
        self._awaited_sums = set(range(self.parts))

    @property
    def key(self) -> tuple[int, int]:
        return self.prepare.step, self.prepare.round

    @property
    def is_whole(self) -> bool:
        """All sums are here."""
        return not self._awaited_sums

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

    def awaits(self, sender: PeerId, part: Part) -> bool:
        """Whether this slice or sum is one that is not here yet."""
        if part.summed:
            return part.index in self._awaited_sums and self.owner(part.index) == sender
        return sender in self._awaited_slices.get(part.index, ())

    def part_arrived(self, sender: PeerId, part: Part) -> list[Instruction]:
        """A slice for one of this peer's parts, or another owner's sum, that it awaits."""
        if part.summed:
            self._awaited_sums.discard(part.index)
            return []
        awaited = self._awaited_slices[part.index]
        awaited.remove(sender)
        return [] if awaited else [self._sum(part.index)]

    def part_summed(self, part: int) -> list[Instruction]:
        """One of this peer's own parts is added up: give it to everyone."""
        self._awaited_sums.discard(part)
        others = (*self.members, *self.prepare.listeners)
        return [self._send(peer, part, summed=True) for peer in others if peer != self._me]

    def _sum(self, part: int) -> SumPart:
        return SumPart(*self.key, part, self.parts, self.contributors, self.prepare.tokens)

    def _send(self, to: PeerId, part: int, *, summed: bool) -> Send:
        message = Part(self.prepare.epoch, *self.key, part, summed)
        return Send(to, message, GradientPart(*self.key, part, self.parts, summed))
