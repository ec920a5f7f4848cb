"""The times at which the next receipt of each claimed microbatch is due.

Backward goes from stage to stage, so after a grant or a receipt another one follows. How long that
takes is learned for each owner, and one that is late is asked again, after twice as long each
time. What was asked for again counts too, from the beginning: next to nothing is ever lost, so an
answer that comes late shows that too little was expected, and would be asked for again for ever.
Who was asked in vain is asked soon once it has come to the next version: before, it may not have
been able to obey.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from swarmrt.ids import MicrobatchId, SeatId
from swarmrt.scheduler.timing.agenda import Agenda
from swarmrt.scheduler.timing.estimate import Estimates
from swarmrt.scheduler.timing.times import ANSWER_S
from swarmrt.scheduler.trainer.work.dispatch import Late
from swarmrt.scheduler.trainer.work.ledger import Ledger

IN_VAIN = 6  # times: then 63 times as long was waited as it ever takes


@dataclass(slots=True)
class Awaited:
    stage: int
    owner: SeatId
    since: float
    patience_s: float  # before it is asked for again
    retries: int = 0


class Receipts:
    def __init__(self, overdue: Agenda[Late]) -> None:
        self._overdue = overdue
        self._times: defaultdict[int, Estimates] = defaultdict(Estimates)  # by stage, of owners:
        # from a grant or receipt to the receipt of the stage
        self._awaited: dict[MicrobatchId, Awaited] = {}
        self._asked_again: dict[MicrobatchId, None] = {}  # of those, in that order

    def expect(self, microbatch: MicrobatchId, stage: int, owner: SeatId, now: float) -> None:
        """The one of this stage is due some time."""
        patience_s = self._times[stage].patience_s(owner, ANSWER_S)
        self._awaited[microbatch] = Awaited(stage, owner, now, patience_s)
        self._asked_again.pop(microbatch, None)
        self._overdue.set(("receipt", microbatch), now + patience_s)

    def expect_next(self, ledger: Ledger, microbatch: MicrobatchId, now: float) -> bool:
        """Expect the one of the stage that accumulates next; return whether there is one."""
        upcoming = ledger.next_owner(microbatch.index)
        if upcoming is None:
            return False
        self.expect(microbatch, *upcoming, now)
        return True

    def came(self, microbatch: MicrobatchId, stage: int, owner: SeatId, now: float) -> None:
        awaited = self._awaited.get(microbatch)
        if awaited is not None:
            self._times[stage].add_answer(owner, now - awaited.since, awaited.patience_s)

    def late(self, microbatch: MicrobatchId, now: float) -> bool:
        """Ask its owner again now. Returns whether that was done in vain, and often."""
        awaited = self._awaited.get(microbatch)
        if awaited is None:
            return False
        awaited.retries += 1
        self._asked_again[microbatch] = None
        times = self._times[awaited.stage]
        patience_s = times.patience_s(awaited.owner, ANSWER_S, awaited.retries)
        self._overdue.set(("receipt", microbatch), now + patience_s)
        return awaited.retries >= IN_VAIN and times.samples > 0

    def is_late_again(self, microbatch: MicrobatchId) -> bool:
        """Return whether it was late more than once: once, many are."""
        awaited = self._awaited.get(microbatch)
        return awaited is not None and awaited.retries > 1

    def has_come_on(self, owner: SeatId, now: float) -> None:
        """Ask an owner that has come to the next version without further delay."""
        for microbatch in [mb for mb in self._asked_again if self._awaited[mb].owner == owner]:
            awaited = self._awaited[microbatch]
            awaited.retries = 0
            del self._asked_again[microbatch]
            patience_s = self._times[awaited.stage].patience_s(owner, ANSWER_S)
            self._overdue.set(("receipt", microbatch), now + patience_s)

    def waited_s(self, microbatch: MicrobatchId, now: float) -> float:
        """Return for how long the receipt that is next has been due."""
        awaited = self._awaited.get(microbatch)
        return now - awaited.since if awaited is not None else 0.0

    def finished(self, microbatch: MicrobatchId) -> None:
        self._asked_again.pop(microbatch, None)
        self._overdue.cancel(("receipt", microbatch))

    def drop(self, step: int) -> None:
        """Expect nothing of a step any more: it is committed, skipped, or not worked on."""
        for microbatch in [mb for mb in self._awaited if mb.commits_in == step]:
            del self._awaited[microbatch]
            self._asked_again.pop(microbatch, None)
            self._overdue.cancel(("receipt", microbatch))

    def clear(self) -> None:
        self._awaited.clear()
        self._asked_again.clear()
