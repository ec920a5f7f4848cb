"""A step's microbatches, from the first attempt to the last receipt.

Rules:
- A step is a fixed set of microbatches; a window bounds those in flight.
- The ledger says who owns each (microbatch, stage). What nobody owns is recovered from retained
  frames, or by another attempt.
- With a staleness of 1, a step runs on the version before its own, so that the next step is open
  while this one is reduced.
- Evaluations of a version run beside the next step.
- A claim counts from a ready replica of the last stage, for an attempt that was sent, and for a
  route that names nobody who serves another stage than it says. One whose
  loss is not finite is tried again without one of those that it passed, until nobody is left to do
  without.
- Whoever keeps what it is given, so that attempt after attempt is late, is done without; so is
  whoever gives the same microbatch up again and again.
- An owner that is asked for its receipt again and again in vain is done without, or else the one
  that should have given it the gradient.
"""

from __future__ import annotations

import math
from collections import Counter

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Claim, Evaluated, Granted, Path, Recover, Released, Stale
from swarmrt.scheduler.instructions import Batch, Instruction, ReportRecovery, Send
from swarmrt.scheduler.trainer.evaluation import Evaluation
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.membership.price import WORDS, is_too_dear
from swarmrt.scheduler.trainer.run import Phase, Run
from swarmrt.scheduler.trainer.work.failures import Failures
from swarmrt.scheduler.trainer.work.ledger import NOBODY, Grant, Ledger

MOST_RELEASES = 4  # of a microbatch by one peer: its neighbours may be lost one after the other


class Working:
    def __init__(self, run: Run) -> None:
        self._run = run
        self.has_landed = False  # a microbatch, since what this makes possible was last done
        self._failures = Failures()
        self._bad_routes: dict[MicrobatchId, list[Path]] = {}  # whose loss is not finite, this step
        self._in_vain: Counter[MicrobatchId] = Counter()  # owners that were done without, this step
        self._released: Counter[tuple[PeerId, MicrobatchId]] = Counter()  # this step
        self._givers: set[tuple[PeerId, MicrobatchId]] = set()  # done without for it, this step

    # ------------------------------------------------------------------ opening steps

    def begin(self, now: float) -> None:
        """Feed all steps that may be open, an evaluation first: all stages are served."""
        run = self._run
        if not run.has_begun:
            run.evaluation = self._new_evaluation()
        run.has_begun = True
        run.begin_books()
        run.dispatch.clear()
        for step in range(run.version, run.version + run.settings.staleness):
            self._feed(step)
        self._open_newest(now)

    def next_step(self, now: float) -> None:
        """Open one more step, as another version is here: the step that made it is over."""
        run = self._run
        run.books.close(run.version - 1)
        run.dispatch.drop(run.version - 1)
        run.receipts.drop(run.version - 1)
        run.skipped.discard(run.version - 1)
        if run.version not in run.books.steps:
            run.books.open(run.version)
        self._failures.drop(run.version)
        run.evaluation = self._new_evaluation()
        self._open_newest(now)

    def _open_newest(self, now: float) -> None:
        run = self._run
        run.phase = Phase.TRAINING
        run.begin_step()
        self._bad_routes.clear()
        self._in_vain.clear()
        self._released.clear()
        self._givers.clear()
        run.step_began_at = now
        run.dispatch.open(run.evaluation.pending())
        self._feed(run.version + run.settings.staleness)

    def _feed(self, step: int) -> None:
        """A step's microbatches, to be sent as the window allows."""
        if step < self._run.last_version:
            self._run.dispatch.open(self._run.books.open(step))

    def _new_evaluation(self) -> Evaluation:
        """Return the evaluation of this version: every so often, and of the last one."""
        run = self._run
        every = run.settings.eval_every
        is_due = every > 0 and run.has_begun and run.version % every == 0
        if (run.is_last_version and not run.is_stopping) or (is_due and not run.is_last_version):
            return Evaluation(run.version, run.settings.eval_microbatches)
        return Evaluation(run.version, 0)

    def stop_after_this_step(self) -> None:
        """The steps after it are not worked on any more."""
        run = self._run
        run.last_version = run.version + 1
        for step in run.books.steps[1:]:
            run.books.close(step)
            run.dispatch.drop(step)

    # ------------------------------------------------------------------ while it runs

    def go_on(self, now: float) -> list[Instruction]:
        """Fill vacancies, and what the window has room for."""
        run = self._run
        self.has_landed = False
        work = self._recover(now) if run.books.has_vacancies else []
        if run.dispatch.has_room and run.phase is not Phase.WAITING:
            work_s = run.work_time.mean_s + WORDS * run.own_link.delay_s
            work += run.dispatch.fill(run.epoch, run.agenda, now, work_s)
        return work

    def claim(self, member: Member, claim: Claim, now: float) -> list[Instruction]:
        run, microbatch = self._run, claim.work.microbatch
        valid = (
            claim.epoch == run.epoch
            and member.state is Membership.READY
            and member.stage == run.num_stages - 1
            and len(claim.route) == run.num_stages
            and claim.route[-1] == member.peer
            and run.dispatch.was_sent(claim.work)
        )
        ledger = run.books.of(microbatch) if valid else None
        if ledger is None:
            return [Send(member.peer, Stale(claim.work))]
        if run.members.is_astray(claim.route):
            run.dispatch.goes_again(microbatch)
            return [Send(member.peer, Stale(claim.work))]
        if not math.isfinite(claim.loss_sum):
            return [Send(member.peer, Stale(claim.work)), *self._loss_is_not_finite(claim)]
        grant = ledger.claim(claim, run.members.is_ready)
        if grant is None:
            return [Send(member.peer, Stale(claim.work))]
        member.worked_at = now
        if ledger.has_advanced:
            run.progress_at = now
        since = math.inf if run.was_held_up else run.step_began_at
        run.dispatch.claimed(microbatch, claim.route[0], now, since)
        run.agenda.cancel(("flight", microbatch))
        self._expect_receipt(ledger, microbatch, now)
        seals = run.seals_of(microbatch, grant)
        return [Send(member.peer, Granted(run.epoch, microbatch, grant.path, grant.need, seals))]

    def _loss_is_not_finite(self, claim: Claim) -> list[Instruction]:
        """Go on without a peer that is on all routes on which it was so."""
        run, microbatch = self._run, claim.work.microbatch
        ready = [run.members.is_ready(peer, stage) for stage, peer in enumerate(claim.route)]
        if not all(ready):
            return []  # somebody has gone meanwhile, or is made up
        reason = f"the loss of microbatch {microbatch} is not finite"
        routes = self._bad_routes.setdefault(microbatch, [])
        for peer in {peer for route in routes for peer in route} - set(claim.route):
            run.conduct.acquit(peer)  # it is so without this one too
        routes.append(claim.route)
        for stage in reversed(range(run.num_stages)):
            shared = {route[stage] for route in routes}
            if len(shared) == 1 and run.has_others(claim.route[stage], stage):
                run.charge(claim.route[stage], reason)
                run.dispatch.goes_again(microbatch)
                return []
        ways = "; ".join(" → ".join(route) for route in routes)
        reason = f"{reason}, whoever computes it: {ways}"
        return run.is_not_finite(microbatch.step, reason, (microbatch,))

    def receipt(self, member: Member, microbatch: MicrobatchId, now: float) -> None:
        run = self._run
        ledger = run.books.of(microbatch)
        if ledger is None:
            return
        if not ledger.receipt(member.peer, microbatch.index, member.stage):
            self._owns_it_after_all(ledger, microbatch, member.stage)
            return
        member.worked_at = now
        self._failures.worked(member.stage)
        if ledger.has_advanced:
            run.progress_at = now
        run.receipts.came(microbatch, member.stage, member.peer, now)
        if not self._expect_receipt(ledger, microbatch, now):
            self.has_landed = True
            run.receipts.finished(microbatch)
            self._landed(microbatch, now)

    def _owns_it_after_all(self, ledger: Ledger, microbatch: MicrobatchId, stage: int) -> None:
        """Have it claimed at once if nobody owns what is accumulated: it was given up, and then its
        gradient came. The attempt that is on its way ends where that was."""
        index = microbatch.index
        if ledger.is_claimed(index) and ledger.owner(index, stage) == NOBODY:
            self._run.dispatch.goes_again(microbatch)

    def _expect_receipt(self, ledger: Ledger, microbatch: MicrobatchId, now: float) -> bool:
        """Expect the receipt of the stage that accumulates next; return whether there is one."""
        upcoming = ledger.next_owner(microbatch.index)
        if upcoming is None:
            return False
        stage, owner = upcoming
        self._run.receipts.expect(microbatch, stage, owner, now)
        return True

    def evaluated(self, member: Member, message: Evaluated, now: float) -> None:
        run, microbatch = self._run, message.work.microbatch
        is_awaited = microbatch.held_out and microbatch.step == run.version
        was_sent = message.epoch == run.epoch and run.dispatch.was_sent(message.work)
        is_last = member.stage == run.num_stages - 1 and member.state is Membership.READY
        if not (is_awaited and was_sent and is_last):
            return
        others = len(run.members.ready(member.stage)) - 1
        member.worked_at = now
        if run.evaluation.add(member.peer, message, others):
            run.came(microbatch, now)
            self._landed(microbatch, now)
        elif run.evaluation.awaits(microbatch):
            run.dispatch.goes_again(microbatch)

    def _landed(self, microbatch: MicrobatchId, now: float) -> None:
        self._run.dispatch.landed(microbatch, now)
        self._run.agenda.cancel(("flight", microbatch))

    # ------------------------------------------------------------------ what does not

    def flight_is_late(self, microbatch: MicrobatchId, now: float) -> list[Instruction]:
        """Send another attempt, unless one goes anyway."""
        run = self._run
        if not run.dispatch.is_late(microbatch):
            return []
        run.was_held_up = True
        self._do_without_silent_ones(microbatch, now)
        return [ReportRecovery(run.version, "reattempted", 1, f"{microbatch} is late")]

    def _do_without_silent_ones(self, microbatch: MicrobatchId, now: float) -> None:
        """Do without who keeps what it is given: of whose work nothing has come since the flight
        began, though something has of others'. If that is several, they may just have had nothing
        to do: they stay until it is late again, or another one is that began after it was late."""
        run = self._run
        since = run.dispatch.began_at(microbatch)
        found = self._silent_since(since)
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

    def _is_too_dear(self, peer: PeerId, waited_s: float) -> bool:
        """Return whether waiting for it longer costs more than its work. Of whom nothing at all is
        heard, that is decided where members are looked after."""
        run, member = self._run, self._run.members.get(peer)
        return member is not None and not member.suspect and is_too_dear(run, member, waited_s)

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
        return [self._recover_at(peer, stage, microbatch, grant) for stage, peer in frontier]

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

    def suspects(self) -> list[PeerId]:
        """Return whom the step waits for, and could do without: owners, or who keeps what it was
        given."""
        run = self._run
        late = {
            (peer, stage)
            for step in run.books.steps
            for index in range(run.settings.microbatches)
            for stage, peer in run.books[step].frontier(index)
        }
        owners = sorted(peer for peer, stage in late if run.has_others(peer, stage))
        since = run.dispatch.oldest_began_at()
        silent = self._silent_since(since) if since is not None else []
        return owners or [member.peer for member in silent]

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
                return run.is_not_finite(microbatch.step, reason, (microbatch,))
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

    def _recover(self, now: float) -> list[Instruction]:
        """Find owners for vacancies: from retained frames, or by another attempt."""
        run = self._run
        instructions: list[Instruction] = []
        recovered = reattempted = 0
        served = {stage for stage, ready in enumerate(run.members.counts) if ready}
        for ledger, index, stage in run.books.vacancies():
            if stage not in served:
                continue  # in a paused run that is what every event finds
            owner = self._new_owner(stage)
            microbatch = MicrobatchId(ledger.step, index)
            if ledger.has_frames(index, stage):
                recovered += 1
                grant = ledger.assign(index, stage, owner)
                instructions.append(self._recover_at(owner, stage, microbatch, grant))
                self._expect_receipt(ledger, microbatch, now)
            else:
                reattempted += run.dispatch.again(microbatch)
        if recovered:
            report = ReportRecovery(run.version, "recovered", recovered, "from retained frames")
            instructions.append(report)
        if reattempted:
            report = ReportRecovery(run.version, "reattempted", reattempted, "frames are gone")
            instructions.append(report)
        return instructions

    def _new_owner(self, stage: int) -> PeerId:
        """The ready replica that owns the least of what is not done."""
        ready = self._run.members.of_stage(stage, Membership.READY)
        fit = [m.peer for m in ready if not m.leaving and not m.suspect] or [m.peer for m in ready]
        load = self._run.books.load(stage)
        return min(fit, key=lambda peer: (load.get(peer, 0), peer))

    def _recover_at(self, peer: PeerId, stage: int, microbatch: MicrobatchId, grant: Grant) -> Send:
        run = self._run
        seals = run.seals_of(microbatch, grant)
        message = Recover(run.epoch, microbatch, grant.path, grant.need, seals)
        return Send(peer, message, Batch(microbatch) if stage == 0 else None)
