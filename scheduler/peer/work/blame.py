"""The blame for frames that could not be computed, and how long their senders are ignored.

Rules:
- What somebody sent may be at fault, or what this peer runs: it cannot be told apart here. So the
  sender is refused for a while, twice as long each time, and never for good.
- One frame of it that can be computed clears it.
"""

from __future__ import annotations

from swarmrt.ids import PeerId, SeatId
from swarmrt.scheduler.timing.times import BLAME_S

MAX_DOUBLINGS = 8  # about a minute


class Blame:
    def __init__(self) -> None:
        self._failures: dict[SeatId, int] = {}  # in a row
        self._until: dict[SeatId, float] = {}

    def failed(self, sender: PeerId | None, now: float) -> float:
        """Blame the sender of a frame that could not be computed. Return until when it is
        refused."""
        if sender is None:
            return now
        number = self._failures[sender] = self._failures.get(sender, 0) + 1
        self._until[sender] = now + BLAME_S * (1 << min(number - 1, MAX_DOUBLINGS))
        return self._until[sender]

    def worked(self, sender: PeerId | None) -> None:
        """Clear the sender of a frame that was computed."""
        if self._failures and sender is not None:
            self._failures.pop(sender, None)
            self._until.pop(sender, None)

    def bars(self, sender: PeerId, now: float) -> bool:
        return bool(self._until) and self._until.get(sender, now) > now

    def clear(self) -> None:
        self._failures.clear()
        self._until.clear()
