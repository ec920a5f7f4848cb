"""The update of a stage by the owners of its parts, where replicas round differently.

The state after an update, parameters and moments, is cut like a gradient: part i belongs to member
i modulo their number. Once all stages are prepared each owner makes its parts, from the mean
gradient that everyone holds, and gives them to all members and listeners. Nobody applies them
before all have them all: who is lost meanwhile makes the round void, as one that is lost in the
reduce does, and nothing has happened.
"""

from __future__ import annotations

from swarmrt.ids import PeerId, SeatId
from swarmrt.messages import Part, Prepare
from swarmrt.scheduler.instructions import Instruction, JoinUpdate, Send, UpdatedPart, UpdatePart
from swarmrt.scheduler.peer.updating.cutting import num_parts

NOBODY = SeatId("")


class OwnersUpdate:
    """Feed it the parts as they come; it says what to make and to send."""

    def __init__(self, me: SeatId, prepare: Prepare, update_bytes: int) -> None:
        self._me, self._prepare = me, prepare
        self._members = tuple(peer for peer, _ in prepare.roster)
        self.parts = num_parts(len(self._members), update_bytes)
        self._awaited = set(range(self.parts))
        self.norm: float | None = None  # of the whole model, once it is known
        self.is_joining = False
        self.digest: str | None = None  # of all of it

    @property
    def is_whole(self) -> bool:
        """Return whether all parts are here."""
        return not self._awaited

    @property
    def is_coming(self) -> bool:
        """Return whether parts are on their way. When they are sent, listeners do not know."""
        is_asked = self.norm is not None or self._me not in self._members
        return is_asked and not self.is_whole

    def owner(self, index: int) -> SeatId:
        return self._members[index % len(self._members)]

    def begin(self, norm: float) -> list[Instruction]:
        """Make this peer's parts: all stages are prepared."""
        self.norm = norm
        mine = [index for index in range(self.parts) if self.owner(index) == self._me]
        key = self._prepare.step, self._prepare.round
        return [UpdatePart(*key, index, self.parts, norm) for index in mine]

    def awaits(self, sender: PeerId, index: int) -> bool:
        """Return whether this is a part that is not here yet, by its owner."""
        return index in self._awaited and self.owner(index) == sender

    def part_arrived(self, index: int) -> None:
        self._awaited.discard(index)

    def part_updated(self, index: int) -> list[Instruction]:
        """Give one of this peer's own parts to everyone."""
        self._awaited.discard(index)
        told = self._prepare
        message = Part(told.epoch, told.step, told.round, index, True, True)
        payload = UpdatedPart(told.step, told.round, index, self.parts)
        others = (*self._members, *told.listeners)
        return [Send(peer, message, payload) for peer in others if peer != self._me]

    def join(self) -> list[Instruction]:
        """Join the parts, once all are here."""
        if not self.is_whole or self.is_joining:
            return []
        self.is_joining = True
        key = (self._prepare.step, self._prepare.round)
        if self.norm is None or self._me not in self._members:
            return [JoinUpdate(*key, self.parts)]
        return [JoinUpdate(*key, self.parts, self._members, self.norm)]

    def waits_for(self) -> SeatId:
        """Return whom a member waits for here: itself, an owner, or nobody."""
        if self.norm is None or self.digest is not None:
            return NOBODY
        if self.is_whole:
            return self._me
        owners = {self.owner(index) for index in self._awaited}
        return self._me if self._me in owners else self.owner(min(self._awaited))
