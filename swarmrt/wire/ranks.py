"""The order in which frames go where not all can go at once.

Control comes before all else. Activations and gradients come before state and probes, but a
newcomer that never got its state would never help: of four frames, one may be of state.
"""

from __future__ import annotations

from swarmrt.messages import Message, Probe, Probed, StateChunk

CONTROL, WORK, STATE = range(3)
OF_STATE: tuple[type[Message], ...] = (StateChunk, Probe, Probed)
WORK_FIRST = 3  # frames of work, before one of state that waits beside them


class Turns:
    """The turns of work and state, when both wait."""

    def __init__(self) -> None:
        self._work_since = 0

    @property
    def is_states(self) -> bool:
        return self._work_since >= WORK_FIRST

    def took(self, rank: int) -> None:
        """Count that one of them has gone, while the other waits."""
        self._work_since = 0 if rank == STATE else self._work_since + 1
