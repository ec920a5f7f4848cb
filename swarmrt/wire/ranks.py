"""The order in which frames go where not all can go at once.

Control comes before all else, then activations and gradients, for which a device may wait. Parts of
a round are in no such hurry, and a state or a probe in none at all. But a round that never ended
would hold up the next version, and a newcomer that never got its state would never help: each gets
a frame now and then, however much comes before it.
"""

from __future__ import annotations

from collections.abc import Collection

from swarmrt.messages import Facts, Message, Part, Probe, Probed, StateChunk

CONTROL, WORK, PARTS, STATE = range(4)
BULK = (WORK, PARTS, STATE)
OF_STATE: tuple[type[Message], ...] = (StateChunk, Probe, Probed, Facts)
PATIENCE = {PARTS: 7, STATE: 3}  # frames of ranks before it, until it is the turn of one of its own


def bulk_rank(message: Message) -> int:
    """Return the rank of a message whose payload is no small one."""
    if isinstance(message, OF_STATE):
        return STATE
    return PARTS if isinstance(message, Part) else WORK


def shares(waiting: Collection[int]) -> dict[int, float]:
    """Return what part of what goes is of each rank of bulk, in the long run, while these wait."""
    left, found = 1.0, dict[int, float]()
    for rank in sorted(waiting, reverse=True)[:-1]:
        found[rank] = left / (PATIENCE[rank] + 1)
        left -= found[rank]
    return found | {min(waiting): left}


class Turns:
    """The turns of the ranks whose frames wait beside each other."""

    def __init__(self) -> None:
        self._passed = dict.fromkeys(PATIENCE, 0)  # frames that went before one that waits

    def next(self, waiting: Collection[int]) -> int:
        """Return the rank whose turn it is. One at least has to wait."""
        first, *others = sorted(waiting)
        if first == CONTROL:
            return first
        return next((rank for rank in others if self._passed[rank] >= PATIENCE[rank]), first)

    def took(self, rank: int, waiting: Collection[int]) -> None:
        """Count that a frame of this rank has gone, while these waited."""
        if rank in self._passed:
            self._passed[rank] = 0
        for other in waiting:
            if other > rank > CONTROL:
                self._passed[other] += 1
