"""The speed of a peer's link, by what comes and goes over it while there is something to carry.

Rules:
- Bytes count while a state or a round is awaited, or while some wait to go. In between a link may
  just have nothing to carry.
- How fast the other end is counts too. A link is at least as fast as the fastest that it was seen,
  and what was seen long ago counts less and less.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from swarmrt.scheduler.events import Moved

MEASURED_S = 3.0  # of carrying, before it counts: the first bytes fill buffers on the way
FORGETS = 1 / 16  # of what was seen before, with each later time of carrying


class LinkRate:
    def __init__(self, gradient_bytes: int) -> None:
        """`gradient_bytes`: of the stage's gradient, as it travels."""
        self.moved_bytes = 0
        self.gradient_bytes = gradient_bytes
        self._coming, self._going = _Direction(), _Direction()

    @property
    def bytes_per_s(self) -> float:
        """Return the rate of the slower way; 0 while none is known."""
        rates = (self._coming.bytes_per_s, self._going.bytes_per_s)
        return min(filter(None, rates), default=0.0)

    @property
    def gradient_s(self) -> float:
        """Return the seconds that a gradient takes, the slower way; 0 while none is known."""
        return self.gradient_bytes / self.bytes_per_s if self.bytes_per_s else 0.0

    def forget(self) -> None:
        """Begin to measure anew."""
        self._coming, self._going = _Direction(), _Direction()

    def moved(self, event: Moved, awaited: Hashable, now: float) -> None:
        """Take the world's word. `awaited` names what is to come here; None for nothing."""
        self.moved_bytes = event.came_bytes + event.went_bytes
        self._coming.carried(event.came_bytes, awaited, now)
        self._going.carried(event.went_bytes, True if event.left_bytes else None, now)


@dataclass(slots=True)
class _Direction:
    bytes_per_s: float = 0.0  # 0 while that is not known
    what: Hashable = None  # that is under way; None for nothing
    since: float = 0.0
    from_bytes: int = 0
    earlier: float | None = None  # what was known before this was measured

    def carried(self, total_bytes: int, what: Hashable, now: float) -> None:
        """Note how much has been carried in all, and `what` is under way now."""
        if what is None or what != self.what:
            self.what, self.since, self.from_bytes, self.earlier = what, now, total_bytes, None
        elif total_bytes == self.from_bytes:
            self.since = now  # its first byte has yet to come
        elif now - self.since >= MEASURED_S:
            if self.earlier is None:
                self.earlier = (1 - FORGETS) * self.bytes_per_s
            seen = (total_bytes - self.from_bytes) / (now - self.since)
            self.bytes_per_s = max(seen, self.earlier)
