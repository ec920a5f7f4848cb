"""When the next receipt of each claimed microbatch is due.

Backward goes from stage to stage, so after a grant or a receipt another one follows. How long that
takes is learned, and an owner that is late is asked again, after twice as long each time.
"""

from __future__ import annotations

from swarmrt.ids import MicrobatchId
from swarmrt.scheduler.agenda import Agenda
from swarmrt.scheduler.dispatch import Late
from swarmrt.scheduler.estimate import Estimate

ANSWER_S = 5.0  # for the first ones, before it is known how long they take


class Receipts:
    def __init__(self, overdue: Agenda[Late]) -> None:
        self._overdue = overdue
        self._time = Estimate()  # from a grant or receipt to the next receipt
        self._since: dict[MicrobatchId, float] = {}
        self._retries: dict[MicrobatchId, int] = {}

    def expect(self, microbatch: MicrobatchId, now: float) -> None:
        """The next one is due some time."""
        self._since[microbatch], self._retries[microbatch] = now, 0
        self._overdue.set(("receipt", microbatch), now + self._time.patience_s(ANSWER_S))

    def came(self, microbatch: MicrobatchId, now: float) -> None:
        if microbatch in self._since and not self._retries[microbatch]:
            self._time.add(now - self._since[microbatch])

    def late(self, microbatch: MicrobatchId, now: float) -> None:
        """Its owner is asked again now."""
        retries = self._retries[microbatch] = self._retries.get(microbatch, 0) + 1
        patience_s = self._time.patience_s(ANSWER_S, retries)
        self._overdue.set(("receipt", microbatch), now + patience_s)

    def finished(self, microbatch: MicrobatchId) -> None:
        self._overdue.cancel(("receipt", microbatch))

    def drop(self, step: int) -> None:
        """A step is committed."""
        for microbatch in [mb for mb in self._since if mb.step == step]:
            del self._since[microbatch]
            self._retries.pop(microbatch, None)

    def clear(self) -> None:
        self._since.clear()
        self._retries.clear()
