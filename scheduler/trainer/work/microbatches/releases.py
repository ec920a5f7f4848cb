"""The microbatches that are given up by who was to compute them.

Rules:
- Whoever gives the same microbatch up again and again is done without, where there are others.
- What several replicas fail to compute is what they were given: it is tried without the giver, and
  else the run cannot go on.
"""

from __future__ import annotations

from collections import Counter

from swarmrt.ids import MicrobatchId, SeatId
from swarmrt.messages import Released
from swarmrt.scheduler.instructions import Instruction, ReportRecovery
from swarmrt.scheduler.trainer.membership.members import Member
from swarmrt.scheduler.trainer.run import Run
from swarmrt.scheduler.trainer.work.failures import Failures
from swarmrt.scheduler.trainer.work.ledger import NOBODY, Ledger

MOST_RELEASES = 4  # of a microbatch by one peer: its neighbours may be lost one after the other


class Releases:
    def __init__(self, run: Run, failures: Failures) -> None:
        self._run, self._failures = run, failures
        self._released: Counter[tuple[SeatId, MicrobatchId]] = Counter()  # this step
        self._givers: set[tuple[SeatId, MicrobatchId]] = set()  # done without for it, this step

    def forget(self) -> None:
        self._released.clear()
        self._givers.clear()

    def released(self, member: Member, message: Released) -> list[Instruction]:
        run, microbatch = self._run, message.microbatch
        ledger = run.books.of(microbatch)
        owned = ledger is not None and ledger.release(member.peer, microbatch.index, member.stage)
        why = f"{microbatch} by {member.peer}: {message.reason}"
        report = ReportRecovery(run.version, "released", 1, why)
        if not message.failed:
            if not owned:
                return []
            self._count_release(member, microbatch)
            return [report]
        if not run.is_open(microbatch):
            return []
        self._count_release(member, microbatch)
        replicas = run.members.ready(member.stage)
        if self._failures.add(message, member.stage, member.peer, replicas):
            who = self._failures.peers(message, member.stage)
            where = f"microbatch {microbatch} cannot be computed at stage {member.stage}, by {who}"
            if self._goes_on_without_giver(ledger, message, member.stage, where):
                return [report]
            if message.not_finite:
                reason = f"{where}: {message.reason}"
                return run.is_not_finite(microbatch.commits_in, reason, (microbatch,))
            return [run.give_up(f"{where}: {message.reason}", (microbatch,))]
        run.dispatch.is_late(microbatch)  # if nobody owns it yet
        return [report]

    def _goes_on_without_giver(
        self, ledger: Ledger | None, message: Released, stage: int, reason: str
    ) -> bool:
        """Do without whoever gave the gradient that nobody can make anything of, if that was not
        tried, and others could give it."""
        run, microbatch = self._run, message.microbatch
        if message.failed == "forward" or ledger is None or stage + 1 >= run.num_stages:
            return False
        giver = ledger.owner(microbatch.index, stage + 1)
        tried = (giver, microbatch) in self._givers
        if tried or giver == NOBODY or not run.has_others(giver, stage + 1):
            return False
        self._givers.add((giver, microbatch))
        self._failures.forgive(message, stage)
        run.charge(giver, f"{reason}, from what it gives")
        return True

    def _count_release(self, member: Member, microbatch: MicrobatchId) -> None:
        """Do without who gives the same one up again and again, where there are others. Alone it
        may have every reason: nobody beside it retains the frames that it lacks."""
        peer = member.peer
        self._released[peer, microbatch] += 1
        if self._released[peer, microbatch] > MOST_RELEASES and self._run.has_others(
            peer, member.stage
        ):
            self._run.charge(peer, f"it gives up microbatch {microbatch} again and again")
