"""Steps with a member, and before it came.

Rules:
- Who has come alone, while nobody went, is judged by the steps that follow. When four more of them
  take longer by half than they did before, than do not, it is left out. In twelve it has shown its
  worth.
- Steps that something else held up do not count, nor those from before others came or went.
- A new incarnation goes on from the steps that the last one has told: else who came just before it
  would be judged by nothing.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

from swarmrt.ids import PeerId
from swarmrt.scheduler.settings import StepTold
from swarmrt.scheduler.timing.estimate import Estimate
from swarmrt.scheduler.timing.times import MORE_S

LONGER = 4  # more steps that take longer than that do not
JUDGED = 12  # steps, after which whoever came is no longer to blame
TIMES = 1.5  # as long as before a step takes that is longer
TOLD = 32  # steps of an earlier incarnation that are looked at


class Longer(NamedTuple):
    """Steps are longer since this member came."""

    peer: PeerId
    seconds: float
    before_s: float


class Comparing:
    def __init__(self, told: tuple[StepTold, ...] = ()) -> None:
        self._members: Set[PeerId] = frozenset()
        self._usual = Estimate()  # with the members that there were before
        self._came: PeerId | None = None  # alone, a few steps ago
        self._before_s = 0.0
        self._judged = self._longer = 0  # steps since then
        for step in told[-TOLD:]:
            self.step_took(frozenset(step.members), step.seconds)

    def step_took(
        self, members: Set[PeerId], seconds: float, *, counts: bool = True
    ) -> Longer | None:
        """Learn from a step that is over. `counts` is false for one that something held up.

        Returns who has made it and those before it too long.
        """
        if members != self._members:
            self._change(members)
        if not counts:
            return None
        if self._came is None:
            self._usual.add(seconds)
            return None
        return self._judge(self._came, seconds)

    def _change(self, members: Set[PeerId]) -> None:
        came, gone = members - self._members, self._members - members
        self._members = frozenset(members)
        self._judged = self._longer = 0
        if len(came) == 1 and not gone and self._usual.samples:
            (self._came,) = came
            self._before_s = self._usual.mean_s
        else:
            self._came = None
            self._usual = Estimate()

    def _judge(self, came: PeerId, seconds: float) -> Longer | None:
        is_longer = seconds > max(TIMES * self._before_s, self._before_s + MORE_S)
        self._judged += 1
        self._longer = max(0, self._longer + (1 if is_longer else -1))
        if self._longer >= LONGER:
            return Longer(came, seconds, self._before_s)
        if self._judged >= JUDGED:
            self._came, self._usual = None, Estimate()
            self._usual.add(seconds)
        return None
