"""The all-reduce of a stage's gradient, in one round: a deterministic butterfly.

The flat gradient is cut into equal parts, as many for each member of the roster, small enough that
some of them are summed while others are on their way. Part i belongs to member i modulo their
number: it gets that slice of every contributor, adds them in roster order, divides by the step's
tokens, and sends the same bytes to everyone, itself included. So all replicas hold equal bits. A
member that accumulated nothing sends no slices, but owns parts like the others. Listeners are
newcomers: they own no part, and get every sum, so that they can follow once they have loaded their
state.

A contributor is a few slices ahead of the sums that it has from their owner, and no more. So what
waits at an owner for the slowest contributor is bounded, and so are slices that are encoded. This
cannot come to a stop: an owner sums its parts in the same order in which all send their slices.
"""

from __future__ import annotations

from swarmrt.ids import PeerId, SeatId
from swarmrt.messages import Part, Prepare
from swarmrt.scheduler.instructions import (
    GradientPart,
    Instruction,
    Send,
    StepOptimizer,
    SumPart,
)
from swarmrt.scheduler.peer.updating.cutting import num_parts
from swarmrt.scheduler.peer.updating.owners import OwnersUpdate

NOBODY = SeatId("")
SLICES_AHEAD = 4  # to each owner: as much as a fast link carries until the first sum is back


class AllReduce:
    """Feed it the parts as they come; it says when to sum and to send."""

    def __init__(
        self, me: SeatId, prepare: Prepare, gradient_bytes: int, update_bytes: int = 0
    ) -> None:
        self.prepare = prepare
        self.members = tuple(peer for peer, _ in prepare.roster)
        self.contributors = tuple(peer for peer, indices in prepare.roster if indices)
        follows = prepare.by_owners and me not in self.members  # it gets what owners make of it
        self.is_combining = prepare.skip or follows  # there is nothing to combine
        self.combined: tuple[str, float] | None = None  # digest, squared norm
        number = len(self.members)
        self.parts = num_parts(number, gradient_bytes)
        self._me = me
        owns = me in self.members and not prepare.skip
        mine = range(self.members.index(me), self.parts, number) if owns else ()
        self._awaited_slices = {part: set(self.contributors) - {me} for part in mine}
        self._awaited_sums = set() if self.is_combining else set(range(self.parts))
        self._unsent = {  # slices of this peer, by owner, the last one first
            owner: list(range(self.parts - number + place, -1, -number))
            for place, owner in enumerate(self.members)
            if me in self.contributors and owner != me
        }
        self.update: OwnersUpdate | None = None
        if prepare.by_owners and not prepare.skip:
            self.update = OwnersUpdate(me, prepare, update_bytes)

    @property
    def key(self) -> tuple[int, int]:
        return self.prepare.step, self.prepare.round

    @property
    def is_whole(self) -> bool:
        """Return whether all sums are here."""
        return not self._awaited_sums

    @property
    def is_coming(self) -> bool:
        """Return whether parts are on their way."""
        return not self.is_whole or (self.update is not None and self.update.is_coming)

    @property
    def is_closed(self) -> bool:
        """Return whether nobody else is needed for it any more."""
        return self.is_combining if self.update is None else self.update.is_joining

    @property
    def is_ready(self) -> bool:
        """Return whether all that the update needs is here."""
        return (self.combined if self.update is None else self.update.digest) is not None

    def is_not(self, agreed: str) -> bool:
        """Return whether what is here is not what the stage has agreed on, as far as is known."""
        own = self.update.digest if self.update is not None else (self.combined or ("", 0.0))[0]
        return bool(agreed and own) and own != agreed

    def step(self, norm: float, *, snapshot: bool) -> StepOptimizer:
        """Return what makes the next version of it."""
        adopt = 0 if self.update is None else self.update.parts
        return StepOptimizer(*self.key, norm, snapshot, self.prepare.skip, adopt)

    def waits_for(self) -> SeatId:
        """Return who is waited for: this peer itself, if all that it needs for a sum is here, or a
        member that has yet to send something; or nobody."""
        if self._me not in self.members:
            return NOBODY
        if self.combined is not None:
            return NOBODY if self.update is None else self.update.waits_for()
        own = self._awaited_slices.items()
        if self.is_whole or any(not from_ for part, from_ in own if part in self._awaited_sums):
            return self._me
        slices = [min(from_) for _, from_ in own if from_]
        return slices[0] if slices else self.owner(min(self._awaited_sums))

    def owner(self, part: int) -> SeatId:
        return self.members[part % len(self.members)]

    def start(self) -> list[Instruction]:
        """Send every owner the first slices of this peer's gradients."""
        ahead = range(SLICES_AHEAD)
        sends = [send for _ in ahead for owner in self._unsent for send in self._next_slice(owner)]
        ready = [part for part, awaited in self._awaited_slices.items() if not awaited]
        return [*sends, *(self._sum(part) for part in ready)]

    def awaits(self, sender: PeerId, part: Part) -> bool:
        """Return whether this slice, sum or updated part is one that is not here yet."""
        if part.updated:
            return self.update is not None and self.update.awaits(sender, part.index)
        if part.summed:
            return part.index in self._awaited_sums and self.owner(part.index) == sender
        return sender in self._awaited_slices.get(part.index, ())

    def part_arrived(self, sender: PeerId, part: Part) -> list[Instruction]:
        """Take what it awaits: a slice for one of this peer's parts, or what another owner made."""
        if part.updated:
            if self.update is not None:
                self.update.part_arrived(part.index)
            return []
        if part.summed:
            self._awaited_sums.discard(part.index)
            return self._next_slice(sender)
        awaited = self._awaited_slices[part.index]
        awaited.remove(sender)
        return [] if awaited else [self._sum(part.index)]

    def part_summed(self, part: int) -> list[Instruction]:
        """Give one of this peer's own parts to everyone: it is added up."""
        self._awaited_sums.discard(part)
        listeners = self.prepare.listeners if self.update is None else ()
        others = (*self.members, *listeners)
        return [self._send(peer, part, summed=True) for peer in others if peer != self._me]

    def _next_slice(self, owner: SeatId) -> list[Instruction]:
        """Return the slice to be sent now that the owner is that far, if there is one left."""
        unsent = self._unsent.get(owner)
        return [self._send(owner, unsent.pop(), summed=False)] if unsent else []

    def _sum(self, part: int) -> SumPart:
        return SumPart(*self.key, part, self.parts, self.contributors, self.prepare.tokens)

    def _send(self, to: SeatId, part: int, *, summed: bool) -> Send:
        message = Part(self.prepare.epoch, *self.key, part, summed)
        return Send(to, message, GradientPart(*self.key, part, self.parts, summed))
