"""The trainer's own link: what it hears while the link carries a state is late by what that takes.

A word goes before bulk, but for the frame that is being written. Over a narrow link that frame
takes seconds, and so everybody seems to be late. How long follows from the link's rate. While
nothing moves, though something is awaited, that is no reason.
"""

from __future__ import annotations

import math

from swarmrt.scheduler.events import Moved
from swarmrt.scheduler.timing.link_rate import LONGEST_WORD_S, LinkRate
from swarmrt.scheduler.timing.times import UNMEASURED_LINK_S

FRAME_BYTES = 256 << 10  # of bulk, for which a word waits


class OwnLink:
    def __init__(self) -> None:
        self.hears_nobody = False  # it is at fault: whoever is late may not be
        self.delay_s = 0.0  # by which a word may be late that was said in time
        self._rate = LinkRate(0)
        self._moved_at = -math.inf

    def moved(self, event: Moved, collects: int | None, now: float) -> None:
        """Take the world's word. `collects` is the version that is being saved, if one is."""
        before = self._rate.moved_bytes
        self._rate.moved(event, collects, now)
        if self._rate.moved_bytes != before or event.left_bytes:
            self._moved_at = now
        self.look(now)

    def look(self, now: float) -> None:
        """Note whether it carries anything at this time."""
        rate, quiet_s = self._rate.bytes_per_s, now - self._moved_at
        waits_s = FRAME_BYTES / rate if rate else UNMEASURED_LINK_S
        self.delay_s = waits_s if quiet_s <= LONGEST_WORD_S else 0.0
