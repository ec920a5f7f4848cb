"""The microbatches that are late: who is asked again, and who is done without.

Rules:
- Whoever keeps what it is given, so that attempt after attempt is late, is done without.
- An owner that is asked for its receipt again and again in vain is done without, or else the one
  that should have given it the gradient.
"""

from __future__ import annotations

from collections import Counter

from swarmrt.ids import MicrobatchId, SeatId
from swarmrt.scheduler.instructions import Instruction, ReportRecovery
from swarmrt.scheduler.timing.agenda import TOLERANCE_S
from swarmrt.scheduler.timing.times import CLAIM_S
from swarmrt.scheduler.trainer.membership.joining.timekeeping import watch_closely
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.membership.price import WORDS, is_too_dear
from swarmrt.scheduler.trainer.run import Run
from swarmrt.scheduler.trainer.work.ledger import NOBODY, Ledger
from swarmrt.scheduler.trainer.work.microbatches.recovering import Recovering
from swarmrt.scheduler.trainer.work.passage import passage_s


class Lateness:
    def __init__(self, run: Run, recovering: Recovering) -> None:
        self._run, self._recovering = run, recovering
        self._in_vain: Counter[MicrobatchId] = Counter()  # owners that were done without, this step

    def forget(self) -> None:
        self._in_vain.clear()

    def flight_is_late(self, microbatch: MicrobatchId, now: float) -> list[Instruction]:
        """Send another attempt, unless one goes anyway."""
        run = self._run
        delay_s = run.own_link.delay_s
        run.dispatch.wait_longer(microbatch, passage_s(run))
        due_at = run.dispatch.due_at(microbatch, WORDS * delay_s)
        if now + TOLERANCE_S < due_at:  # it was known too little, or words are late by our own link
            look_s = delay_s if delay_s > TOLERANCE_S else CLAIM_S
            run.agenda.set(("flight", microbatch), min(due_at, now + look_s))
            return []
        if not run.dispatch.is_late(microbatch):
            return []
        run.pace.was_held_up = True
        report = ReportRecovery(run.version, "reattempted", 1, f"{microbatch} is late")
        return [report, *self._do_without_silent_ones(microbatch, now)]

    def _do_without_silent_ones(self, microbatch: MicrobatchId, now: float) -> list[Instruction]:
        """Do without who keeps what it is given: of whose work nothing has come since the flight
        began, though something has of others'. If that is several, they may just have had nothing
        to do: they stay until it is late again, or another one is that began after it was late."""
        run = self._run
        since = run.dispatch.began_at(microbatch)
        found = self._silent_since(since)
        watched = [one for member in found for one in watch_closely(run, member, now)]
        for member in found:
            if member.late_since <= member.idle_since:
                member.late_since, member.late_at = since, now
        if len(found) > 1 and not run.dispatch.is_in_vain(microbatch):
            found = [member for member in found if member.late_at < since]
        for member in found:
            waited_s = now - member.late_since
            if not self._is_too_dear(member.peer, waited_s):
                continue
            reason = f"nothing has come of its work for {waited_s:.0f} s"
            run.charge(member.peer, reason, "fault" if len(found) == 1 else "cut", waited_s)
        return watched

    def _is_too_dear(self, peer: SeatId, waited_s: float) -> bool:
        """Return whether waiting for it longer costs more than its work. Of whom nothing at all is
        heard, that is decided where members are looked after, unless beacons are rare."""
        run, member = self._run, self._run.members.get(peer)
        if member is None or (member.suspect and not member.health.is_rarely_heard):
            return False
        return is_too_dear(run, member, waited_s)

    def _silent_since(self, since: float) -> list[Member]:
        """Return those of whose work nothing has come, though something has of others' of their
        stage."""
        run = self._run
        found: list[Member] = []
        for stage in range(run.num_stages):
            ready = run.members.of_stage(stage, Membership.READY)
            if any(member.worked_at >= since for member in ready):
                found += [member for member in ready if member.idle_since < since]
        return found

    def receipt_is_late(self, microbatch: MicrobatchId, now: float) -> list[Instruction]:
        """Ask the owner who is next to accumulate: its gradient, or its receipt, may be lost."""
        run, index = self._run, microbatch.index
        ledger = run.books.of(microbatch)
        upcoming = ledger.next_owner(index) if ledger is not None else None
        if ledger is None or upcoming is None:
            return []
        if run.receipts.late(microbatch, now):
            self._go_on_without(ledger, index, upcoming[0], now)
        grant = ledger.grant_to_owners(index)
        frontier = ledger.frontier(index)
        late = frontier if run.receipts.is_late_again(microbatch) else []
        owners = [m for _, peer in late if (m := run.members.get(peer)) is not None]
        watched = [one for member in owners for one in watch_closely(run, member, now)]
        return watched + [
            self._recovering.recover_at(peer, stage, microbatch, grant) for stage, peer in frontier
        ]

    def _go_on_without(self, ledger: Ledger, index: int, stage: int, now: float) -> None:
        """The owner that is next to accumulate, or when that has not helped, who comes after it
        and has not given its gradient."""
        run, microbatch = self._run, MicrobatchId(ledger.step, index)
        owners = ledger.grant_to_owners(index).path
        suspects = [s for s in (stage, stage + 1) if s < run.num_stages and owners[s] != NOBODY]
        for number in range(len(suspects)):
            place = suspects[(self._in_vain[microbatch] + number) % len(suspects)]
            waited_s = run.receipts.waited_s(microbatch, now)
            if run.has_others(owners[place], place) and self._is_too_dear(owners[place], waited_s):
                self._in_vain[microbatch] += 1
                reason = f"it was asked for microbatch {microbatch} again and again, in vain"
                run.charge(owners[place], reason, waited_s=waited_s)
                return

    def suspects(self) -> list[SeatId]:
        """Return whom the step waits for, and could do without: owners, or who keeps what it was
        given."""
        run = self._run
        late = {
            (peer, stage)
            for step in run.books.steps
            for index in range(run.books[step].microbatches)
            for stage, peer in run.books[step].frontier(index)
        }
        owners = sorted(peer for peer, stage in late if run.has_others(peer, stage))
        since = run.dispatch.oldest_began_at()
        silent = self._silent_since(since) if since is not None else []
        return owners or [member.peer for member in silent]
