"""Steps with a member, and before it came.

Rules:
- Who has come, while nobody went who was there before, is judged by the steps that follow. When
  four more of them take longer by half than they did before, than do not, it is left out. In twelve
  it has shown its worth.
- Those that come together, or so soon after each other that nothing is known of the first, are
  judged together. When one of them has gone, the others are judged anew.
- Steps that something else held up do not count, nor those from before others came or went.
- A new incarnation goes on from the steps that the last one has told: else who came just before it
  would be judged by nothing.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from swarmrt.ids import SeatId
from swarmrt.scheduler.settings import StepTold
from swarmrt.scheduler.timing.estimate import Estimate
from swarmrt.scheduler.timing.times import MORE_S

LONGER = 4  # more steps that take longer than that do not
JUDGED = 12  # steps, after which whoever came is no longer to blame
TIMES = 1.5  # as long as before a step takes that is longer
TOLD = 32  # steps of an earlier incarnation that are looked at


class Longer(NamedTuple):
    """Steps are longer since these members came."""

    peers: Set[SeatId]
    seconds: float
    before_s: float


class Comparing:
    def __init__(self, told: tuple[StepTold, ...] = ()) -> None:
        self._members: Set[SeatId] = frozenset()
        self._usual = Estimate()  # with the members that there were before
        self._came: Set[SeatId] = frozenset()  # a few steps ago
        self._with_them = Estimate()
        self._judged = self._longer = 0  # steps since then
        for step in told[-TOLD:]:
            self.step_took(frozenset(step.members), step.seconds)

    def step_took(
        self, members: Set[SeatId], seconds: float, *, counts: bool = True
    ) -> Longer | None:
        """Learn from a step that is over. `counts` is false for one that something held up.

        Returns who may have made it and those before it too long.
        """
        if members != self._members:
            self._change(members)
        if not counts:
            return None
        if not self._came:
            self._usual.add(seconds)
            return None
        return self._judge(seconds)

    def _change(self, members: Set[SeatId]) -> None:
        came, gone = members - self._members, self._members - members
        if self._judged >= LONGER and not self._longer:
            self._accept()
        if gone <= self._came and self._usual.samples:
            self._came = (self._came - gone) | came
        else:
            self._came, self._usual = frozenset(), Estimate()
        self._members = frozenset(members)
        self._begin_anew()

    def _judge(self, seconds: float) -> Longer | None:
        before_s = self._usual.mean_s
        is_longer = seconds > max(TIMES * before_s, before_s + MORE_S)
        self._with_them.add(seconds)
        self._judged += 1
        self._longer = max(0, self._longer + (1 if is_longer else -1))
        if self._longer >= LONGER:
            return Longer(self._came, seconds, before_s)
        if self._judged >= JUDGED:
            self._accept()
        return None

    def _accept(self) -> None:
        """Steps are usual as they are by now."""
        self._came, self._usual = frozenset(), self._with_them
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._judged = self._longer = 0
        self._with_them = Estimate()
