"""The times at which the owner of a machine lends its device, and what they ask beside that.

Rules:
- A pause that is asked for holds until it is taken back.
- Whoever resumes outside of the hours, or as they end, lends the device until they begin; then they
  count again.
- In the last minute of the hours it goes gently: once the next version is made.
- Hours are read off the clock on the wall. An hour that comes twice, as summer time ends, is lent
  twice; and where the end is skipped, as it begins, they end with what comes instead.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

DAY_S = 86400
AHEAD_S = 60.0  # before the hours end

Wish = Literal["lend", "end gently", "take"]


class Hours(NamedTuple):
    """A time of the day, from and to, in seconds since midnight; perhaps over midnight."""

    begin_s: int
    end_s: int

    def left_s(self, day_s: float) -> float:
        """Return how long they last at this time of the day; 0 outside of them."""
        length_s = (self.end_s - self.begin_s) % DAY_S
        if self.end_s - self.begin_s == DAY_S:
            return math.inf
        return max(0.0, length_s - (day_s - self.begin_s) % DAY_S)

    def __str__(self) -> str:
        return f"{_clock(self.begin_s)}-{_clock(self.end_s)}"


def _clock(day_s: int) -> str:
    return f"{day_s // 3600}:{day_s // 60 % 60:02}"


class Owner:
    """The owner of a machine, who has a device to lend."""

    def __init__(self, hours: Hours | None = None) -> None:
        self.hours = hours
        self._asked: Literal["nothing", "pause", "serve"] = "nothing"

    def pause(self) -> None:
        """Ask for the device."""
        self._asked = "pause"

    def resume(self, day_s: float) -> None:
        """Lend it, whatever the hours say now."""
        self._asked = "nothing" if self.left_s(day_s) > AHEAD_S else "serve"

    def wish(self, day_s: float) -> Wish:
        """Return what is to be at this time of the day."""
        left_s = self.left_s(day_s)
        if left_s > AHEAD_S and self._asked == "serve":
            self._asked = "nothing"
        if self._asked == "serve":
            return "lend"
        if self._asked == "pause" or not left_s:
            return "take"
        return "end gently" if left_s <= AHEAD_S else "lend"

    def left_s(self, day_s: float) -> float:
        """Return how long the hours last at this time of the day."""
        return math.inf if self.hours is None else self.hours.left_s(day_s)
