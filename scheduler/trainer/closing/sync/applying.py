"""The second phase of a commit: all apply the update that all have prepared.

Rules:
- A version is committed when every live replica has applied it. Then newcomers may get it, and it
  is saved, if it is to be.
- Whoever is missing again (`missing`), or has come to other weights than its stage, is charged.
- Whoever is late is waited for twice as long each time, until one of those that are late answers.
"""

from __future__ import annotations

from swarmrt.ids import SeatId
from swarmrt.messages import Applied, Apply
from swarmrt.scheduler.instructions import Instruction, ReportLate, Send
from swarmrt.scheduler.local_work import LocalWork
from swarmrt.scheduler.timing.estimate import Estimate
from swarmrt.scheduler.timing.times import ANSWER_S, FIRST_UPDATE_S
from swarmrt.scheduler.trainer.closing.missing import TWICE, Missing
from swarmrt.scheduler.trainer.closing.saves import copied_stages, is_to_be_saved
from swarmrt.scheduler.trainer.closing.sync.commit import Commit
from swarmrt.scheduler.trainer.closing.sync.costs import Costs
from swarmrt.scheduler.trainer.closing.sync.prepare_round import PrepareRound
from swarmrt.scheduler.trainer.closing.sync.round_patience import RoundPatience
from swarmrt.scheduler.trainer.closing.sync.voiding import stop_waiting
from swarmrt.scheduler.trainer.closing.unlike import SOFTWARE, kind_of_difference
from swarmrt.scheduler.trainer.membership.joining.admitting import Admitting
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run
from swarmrt.scheduler.trainer.work.microbatches.working import Working


class Applying:
    def __init__(
        self, run: Run, admitting: Admitting, working: Working, patience: RoundPatience
    ) -> None:
        self._run, self._admitting, self._working = run, admitting, working
        self._patience, self._costs, self._missing = patience, Costs(run), Missing(run)

    def apply(self, round_: PrepareRound, norm: float, now: float) -> list[Instruction]:
        """Announce the global norm, as all stages are prepared, and go on to the next step."""
        run = self._run
        self._patience.took(round_, now)
        apply = Apply(run.epoch, run.version, round_.number, norm, False)
        copied = copied_stages(run, self._admitting, now)
        run.saving.snapshots += bool(copied)
        commit = Commit(
            version=run.version + 1,
            num_stages=run.num_stages,
            expected=round_.members,
            apply=apply,
            agreed=tuple(map(round_.agreed, range(run.num_stages))),
            copied_stages=copied,
            loss=run.ledger.loss,
            tokens=run.ledger.tokens,
            seconds=now - run.pace.step_began_at,
            checkpoint=is_to_be_saved(run) and run.saving.under_way is None,
            skipped=round_.skip,
            microbatches=run.ledger.microbatches if run.settings.every_s else 0,
        )
        stop_waiting(run)
        self._costs.round_took(round_, now)
        self._costs.step_took(round_, commit.seconds - round_.held_s)
        self._wait(commit, now)
        run.pace.applied_at = now
        self._missing.begin(now)
        run.pace.step_took(commit.seconds - round_.held_s)
        run.sizes.took(run.version, commit.seconds - round_.held_s, now - run.pace.round_began_at)
        run.announce(commit, (round_.number, norm))
        run.saving.offered = None
        self._working.next_step(now)
        return [Send(peer, commit.apply_at(stage)) for peer, stage in round_.audience]

    def is_late(self, now: float) -> list[Instruction]:
        """Tell those again to apply who have not answered."""
        run, commit = self._run, self._run.commit
        if commit is None:
            return []
        commit.retries, commit.in_vain = commit.retries + 1, commit.in_vain + 1
        run.agenda.set(("apply", None), now + self._patience_s(commit))
        again: list[Instruction] = [
            Send(peer, commit.apply_at(commit.expected[peer])) for peer in commit.missing()
        ]
        waited_s = self._missing.waited_s(now)
        if not run.pace.apply_time.samples and waited_s < FIRST_UPDATE_S:
            return again
        late = self._missing.again(self.suspects(), commit.missing(), now)
        reason = "the commit waited for it again and again, in vain"
        run.charge_all(late, reason, waited_s)
        if commit.retries < TWICE:
            return again
        awaited = f"APPLIED of {commit.missing()}"
        return [*again, ReportLate(run.version, now - run.pace.applied_at, awaited)]

    def _wait(self, commit: Commit, now: float) -> None:
        """Begin to wait for all who have been asked: for each as long as it needed before, which is
        longer where a snapshot is taken."""
        times = self._run.pace.apply_times
        commit.patience_s = {
            peer: times[commit.is_copied_by(peer)].patience_s(peer, ANSWER_S)
            for peer in commit.expected
        }
        self._run.agenda.set(("apply", None), now + self._patience_s(commit))

    def _patience_s(self, commit: Commit) -> float:
        """Return how long an update is waited for: as long as its slowest member needs."""
        slowest_s = max((commit.patience_s[peer] for peer in commit.missing()), default=ANSWER_S)
        return Estimate().patience_s(slowest_s, commit.in_vain)

    def applied(self, member: Member, message: Applied, now: float) -> list[Instruction]:
        commit, version = self._run.commit, message.version
        if commit is None or version != commit.version or member.peer not in commit.expected:
            return []
        if member.peer not in commit.applied:
            times = self._run.pace.apply_times[commit.is_copied_by(member.peer)]
            waited_s = max(commit.patience_s.values())
            times.add_answer(member.peer, now - self._run.pace.applied_at, waited_s)
            commit.applied[member.peer] = message.digest
            work = LocalWork(message.local_steps, message.late, message.drift)
            commit.local[member.peer] = work
            self._run.receipts.has_come_on(member.peer, now)
            if commit.in_vain and not commit.is_whole:
                self._wait_anew(commit, now)
        member.named_weights = (version, commit.applied[member.peer])
        self._run.pace.came((member.peer, "applied"), now)
        return self.close_if_whole(commit, now)

    def _wait_anew(self, commit: Commit, now: float) -> None:
        """Wait for the others as at first, now that a late one has answered: while nobody had, that
        grew long, and nobody could be told apart."""
        commit.in_vain = 0
        self._run.agenda.set(("apply", None), now + self._patience_s(commit))

    def close_if_whole(self, commit: Commit, now: float) -> list[Instruction]:
        """Close the step, once every live replica has applied it."""
        run = self._run
        if not commit.is_whole:
            return []
        odd = commit.odd_ones(run.trust)
        if odd:
            reason = f"its weights of version {run.version} are not those of the other replicas"
            for peer in odd:
                kind = kind_of_difference(run, commit.expected, commit.expected[peer])
                run.charge(peer, f"{reason}: {SOFTWARE}", kind)
            return []
        digests = tuple(replicas[0][1] if replicas else "" for replicas in commit.digests)
        run.committed(digests)
        run.agenda.cancel(("apply", None))
        if not commit.retries:
            run.pace.apply_time.add(now - run.pace.applied_at)
        return self._committed(commit, now)

    def _committed(self, commit: Commit, now: float) -> list[Instruction]:
        """End the commit: every replica holds the new version."""
        run = self._run
        report, digests = commit.report(), commit.digests
        instructions: list[Instruction] = [report]
        for peer in commit.expected:
            run.conduct.took_part(peer)
            member = run.members.get(peer)
            if member is not None:
                member.has_agreed = True
        if not all(digests):
            return instructions  # a stage is lost, which is dealt with where it was
        donors = tuple(tuple(peer for peer, _ in replicas) for replicas in digests)
        if commit.checkpoint:
            save = run.saving.begin(commit.version, run.epoch, donors, run.digests)
            instructions.append(save)
        for member in run.members.in_state(Membership.SEEN):
            has_donors = member.stage in commit.copied_stages
            if has_donors and self._admitting.may_join(member, run.version, now):
                instructions.append(self._admitting.admit(member, donors[member.stage], now))
        return instructions

    def suspects(self) -> list[SeatId]:
        """Return whom the commit waits for, and could do without."""
        commit = self._run.commit
        return [*commit.suspects(), *self._late_beside_newcomers(commit)] if commit else []

    def _late_beside_newcomers(self, commit: Commit) -> list[SeatId]:
        """Return who has not applied a version that none of its stage has, but for newcomers who
        are let in once it is committed."""
        run = self._run
        done = {commit.expected[peer] for peer in commit.applied}
        stages = {commit.expected[peer] for peer in commit.missing()} - done
        admitted = [m for m in run.members.in_state(Membership.ADMITTED) if m.stage in stages]
        served = {m.stage for m in admitted if self._admitting.could_serve(m)}
        return [peer for peer in commit.missing() if commit.expected[peer] in served]
