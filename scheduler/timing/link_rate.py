"""The speed of a peer's link, by what comes and goes over it while there is something to carry.

Rules:
- Bytes count while a state or a round is awaited, or while some wait to go. In between a link may
  just have nothing to carry.
- Of what comes only the time counts in which something does: in between it may be the other end
  that has nothing to give, or waits for another one. What waits to go waits for a link.
- What goes out waits for the other ends as well. A link out of which something goes is at least as
  fast as what goes to the fastest of them: what goes to one may be a burst that is measured too
  slow, so that alone makes no rate.
- How fast the other end is counts too. A link is at least as fast as the fastest that it was seen,
  and what was seen long ago counts less and less.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from swarmrt.ids import PeerId
from swarmrt.scheduler.events import Moved

MEASURED_S = 3.0  # of carrying, before it counts: the first bytes fill buffers on the way
LONGEST_WORD_S = 1.0  # between two words of what moves: twice a second, unless nothing does
BUFFERS_BYTES = 8 << 20  # on the way to an other end: what fills them has not gone
MOST_LANES = 64  # other ends that are told apart
FORGETS = 1 / 16  # of what was seen before, with each later time of carrying


class LinkRate:
    def __init__(self, gradient_bytes: int) -> None:
        """`gradient_bytes`: of the stage's gradient, as it travels."""
        self.moved_bytes = 0
        self.gradient_bytes = gradient_bytes
        self._told_at = 0.0
        self.forget()

    @property
    def bytes_per_s(self) -> float:
        """Return the rate of the slower way; 0 while none is known."""
        going = self._going.bytes_per_s
        if going:
            going = max(going, *(lane.bytes_per_s for lane in self._lanes.values()), 0.0)
        return min(filter(None, (self._coming.bytes_per_s, going)), default=0.0)

    @property
    def gradient_s(self) -> float:
        """Return the seconds that a gradient takes, the slower way; 0 while none is known."""
        return self.gradient_bytes / self.bytes_per_s if self.bytes_per_s else 0.0

    def forget(self) -> None:
        """Begin to measure anew."""
        self._coming, self._going = Direction(pauses=True), Direction(pauses=False)
        self._lanes: dict[PeerId, Lane] = {}

    def moved(self, event: Moved, awaited: Hashable, now: float) -> None:
        """Take the world's word. `awaited` names what is to come here; None for nothing."""
        self.moved_bytes = event.came_bytes + event.went_bytes
        self._coming.carried(event.came_bytes, awaited, now)
        self._going.carried(event.went_bytes, True if event.left_bytes else None, now)
        elapsed_s, self._told_at = min(now - self._told_at, LONGEST_WORD_S), now
        for peer, went_bytes, left_bytes in event.links:
            self._lanes.setdefault(peer, Lane()).went(went_bytes, left_bytes, elapsed_s)
        self._forget_lanes()

    def _forget_lanes(self) -> None:
        """Keep the fastest, if there are many: others come and go for as long as this process
        runs."""
        if len(self._lanes) > MOST_LANES:
            slowest = min(self._lanes, key=lambda peer: self._lanes[peer].bytes_per_s)
            del self._lanes[slowest]


@dataclass(slots=True)
class Direction:
    """A direction of a link, and what it carries."""

    pauses: bool  # when the other end does: time in which nothing moves is not the link's
    bytes_per_s: float = 0.0  # 0 while that is not known
    what: Hashable = None  # that is under way; None for nothing
    total_bytes: int = 0  # by the last word
    told_at: float = 0.0
    bytes: int = 0  # of what is under way
    seconds: float = 0.0  # that they took
    earlier: float | None = None  # what was known before this was measured

    def carried(self, total_bytes: int, what: Hashable, now: float) -> None:
        """Note how much has been carried in all, and `what` is under way now."""
        new_bytes, elapsed_s = total_bytes - self.total_bytes, now - self.told_at
        self.total_bytes, self.told_at = total_bytes, now
        if what is None or what != self.what:
            self.what, self.bytes, self.seconds, self.earlier = what, 0, 0.0, None
            return
        if not new_bytes and (self.pauses or not self.bytes):
            return  # it pauses, or the first byte has yet to move
        self.bytes += new_bytes
        self.seconds += min(elapsed_s, LONGEST_WORD_S) if self.pauses else elapsed_s
        if self.seconds >= MEASURED_S:
            if self.earlier is None:
                self.earlier = (1 - FORGETS) * self.bytes_per_s
            self.bytes_per_s = max(self.bytes / self.seconds, self.earlier)


@dataclass(slots=True)
class Lane:
    """A lane of a link: all that goes to one other end."""

    bytes_per_s: float = 0.0  # 0 while that is not known
    total_bytes: int | None = None  # by the last word
    bytes: int = 0  # beside those that only fill buffers
    seconds: float = 0.0  # in which they went, or waited to
    waits: bool = False  # something did, by the last word: buffers are full

    def went(self, total_bytes: int, left_bytes: int, elapsed_s: float) -> None:
        """Note how much has gone in all since the last word, and what waits."""
        new_bytes = total_bytes - (total_bytes if self.total_bytes is None else self.total_bytes)
        self.total_bytes = total_bytes
        if new_bytes > 0:
            self.bytes += new_bytes if self.waits else max(0, new_bytes - BUFFERS_BYTES)
        if new_bytes > 0 or left_bytes:
            self.seconds += elapsed_s
        self.waits = left_bytes > 0
        if self.seconds >= MEASURED_S:
            slower = (1 - FORGETS) * self.bytes_per_s
            self.bytes_per_s = max(self.bytes / self.seconds, slower)
            self.bytes, self.seconds = 0, 0.0
