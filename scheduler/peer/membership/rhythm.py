"""The rhythm of a seat's beacons: when the next one is due.

Rules:
- The trainer says how often, within bounds that no word of it moves (`intervals`).
- Each beacon tells within which time the next one follows, and that is kept: a longer interval
  begins with the next one, a shorter one at once.
- Many seats are told at once. So that they do not beacon at once, the first interval of each is
  shorter, by a share of its own.
- Where beacons are rare, what has changed is shown by one more, soon.
"""

from __future__ import annotations

from collections.abc import Hashable

from swarmrt.ids import SeatId
from swarmrt.scheduler.instructions import Instruction, RenewEvery, StartDeadline
from swarmrt.scheduler.timing.intervals import beacon_within_bounds, phase
from swarmrt.scheduler.timing.times import BEACON_S


class Rhythm:
    def __init__(self, me: SeatId) -> None:
        self.every_s = BEACON_S
        self._phase = phase(me)
        self._is_first = False  # interval of this length
        self._due_at = 0.0
        self._shown: Hashable = None  # what was so by the last look

    @property
    def told_to_others(self) -> tuple[float, ...]:
        """Return the interval, as the last field of a beacon; nothing if it is the usual one."""
        return (self.every_s,) if self.every_s > BEACON_S else ()

    def told(self, every_s: float, now: float) -> list[Instruction]:
        """Keep another interval from now on."""
        every_s = beacon_within_bounds(every_s)
        if every_s == self.every_s:
            return []
        self.every_s, self._is_first = every_s, True
        is_late = self._due_at > now + every_s
        return [RenewEvery(every_s), *([self.next(now)] if is_late else [])]

    def next(self, now: float) -> StartDeadline:
        """Return when to beacon next."""
        share = self._phase if self._is_first else 1.0
        self._is_first, self._due_at = False, now + share * self.every_s
        return StartDeadline("beacon", self._due_at)

    def show(self, what: Hashable, now: float) -> list[StartDeadline]:
        """Beacon soon if that has changed, and the next beacon would not be soon."""
        if self.every_s <= BEACON_S or what == self._shown:
            return []
        self._shown = what
        return [StartDeadline("show", now + BEACON_S)] if self._due_at > now + BEACON_S else []
