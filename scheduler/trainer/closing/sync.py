"""Committing a step.

Rules:
- Commit has two phases. Prepare: every stage reduces over its roster. Apply, once *all* stages are
  prepared: one global norm, one update. Where replicas are unlike, owners of parts make the update
  before that, and Apply means to adopt it.
- A round that loses a member, or is late, is void, and repeated with those that are left. It is not
  late while its parts move. Whoever is missing again (`missing`), or says what the other replicas
  do not, is done without; so is the slowest link of a round that takes longer than it is worth.
- Nobody waits for a newcomer, but for the little time of `holding`.
- A version is committed when every live replica has applied it. Then newcomers may get it, and it
  is saved, if it is to be.
- What becomes of members is decided elsewhere: here they are charged.
"""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import Apply, Prepared, Refused, Updated
from swarmrt.scheduler.instructions import Instruction, ReportLate, ReportRecovery, Send
from swarmrt.scheduler.timing.estimate import LONGEST_S, Estimate
from swarmrt.scheduler.trainer.closing import worth
from swarmrt.scheduler.trainer.closing.comparing import Comparing
from swarmrt.scheduler.trainer.closing.disputes import CONFIRM_S, NotFinite, Unreachable
from swarmrt.scheduler.trainer.closing.holding import Holding
from swarmrt.scheduler.trainer.closing.missing import TWICE, Missing, blamed
from swarmrt.scheduler.trainer.closing.unlike import SOFTWARE, kind_of_difference
from swarmrt.scheduler.trainer.closing.version import Commit, Round
from swarmrt.scheduler.trainer.membership.joining.admitting import Admitting
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.plausible import MOST_SAID
from swarmrt.scheduler.trainer.run import ANSWER_S, Phase, Run
from swarmrt.scheduler.trainer.work.microbatches.working import Working

ROUND_S = 30.0  # for the first rounds
ASK_AGAIN = 2 / 3  # of the time after which a round is void
LOOK_S = 1.25  # beacons tell twice a second what moves
FIRST_UPDATE_S = 30.0  # before it is known how long one takes


class Committing:
    def __init__(self, run: Run, admitting: Admitting, working: Working) -> None:
        self._run, self._admitting, self._working = run, admitting, working
        self._rounds = run.settings.epoch << 32  # so that numbers are unique over incarnations
        self._round_time = Estimate()
        self._newest: Round | None = None  # that was begun, though it may be void by now
        self._moved_bytes = 0  # of the round, when it was last looked at
        self._has_looked = False  # since it was begun: what moved before may have come to a stop
        self._holding, self._comparing = Holding(run), Comparing(run.settings.told)
        self._missing = Missing(run)  # in rounds
        self._missing_updates = Missing(run)
        self._begin_step(0.0)

    def _begin_step(self, now: float) -> None:
        self._missing.begin(now)
        self._unreachable, self._not_finite = Unreachable(), NotFinite()

    # ------------------------------------------------------------------ prepare

    def prepare(self, now: float) -> list[Instruction]:
        """Ask every stage to reduce. The step is complete, and the last commit whole."""
        run = self._run
        if min(run.members.counts) == 0:
            return []
        if self._holding.is_held(now):
            return []
        admitted = run.members.in_state(Membership.ADMITTED)
        joining = [member for member in admitted if not worth.is_too_far_behind(run, member)]
        run.phase = Phase.PREPARING
        self._rounds += 1
        stages, skip = range(run.num_stages), run.version in run.skipped
        rosters = tuple(run.ledger.roster(s, run.members.ready(s)) for s in stages)
        listeners = tuple(tuple(m.peer for m in joining if m.stage == s) for s in stages)
        shared = {s for s in stages if len(rosters[s]) + len(listeners[s]) > 1}
        if self._newest is None or (self._newest.epoch, self._newest.step) != run.current:
            self._begin_step(now)
        run.round = self._newest = Round(
            run.epoch,
            run.version,
            self._rounds,
            rosters=rosters,
            listeners=listeners,
            tokens=run.ledger.tokens,
            began_at=now,
            skip=skip,
            by_owners=frozenset() if skip else frozenset(run.by_owners & shared),
        )
        run.round_began_at = now
        self._wait_for(run.round, now)
        return [Send(peer, prepare) for peer, prepare in run.round.prepares()]

    def _wait_for(self, round_: Round, now: float) -> None:
        """Begin to wait for what the members of a round have just been asked for."""
        run = self._run
        self._moved_bytes, self._has_looked = worth.moved_bytes(run, round_), False
        patience_s = self._patience_s(round_)
        run.agenda.set(("ask", None), now + ASK_AGAIN * patience_s)
        look_s = LOOK_S * 2.0 ** min(run.void_rounds, 20)
        run.agenda.set(("round", None), now + max(look_s, patience_s))

    def _patience_s(self, round_: Round) -> float:
        """Return how long a round is waited for: by what others took, and what its links take."""
        learned_s = self._round_time.patience_s(ROUND_S, self._run.void_rounds)
        carrying_s = worth.carrying_s(self._run, round_) * 2.0 ** min(self._run.void_rounds, 20)
        return min(LONGEST_S, learned_s + carrying_s + self._run.own_link.delay_s)

    def _copied_stages(self, now: float) -> frozenset[int]:
        """Return the stages whose version after this step others are to get: nobody else copies."""
        run = self._run
        if self._is_to_be_saved:
            return frozenset(range(run.num_stages))
        if not run.saving.leaves_room:
            return frozenset()
        newcomers = run.members.in_state(Membership.SEEN)
        version = run.version + 1
        return frozenset(m.stage for m in newcomers if self._admitting.may_join(m, version, now))

    @property
    def _is_to_be_saved(self) -> bool:
        """Return whether the version after this step is to be saved, now or as soon as it can be.

        What is still being saved holds nobody up: then the next one that is due is saved instead.
        """
        run, every = self._run, self._run.settings.checkpoint_every
        version = run.version + 1
        is_due = every > 0 and version % every == 0 and run.saving.under_way is None
        return is_due or version == run.last_version

    def prepare_again(self) -> list[Instruction]:
        """Tell those again to prepare who have not answered."""
        round_ = self._run.round
        if round_ is None:
            return []
        missing = round_.missing()
        if round_.norm is not None:
            return [Send(peer, update) for peer, update in round_.updates() if peer in missing]
        return [Send(peer, prepare) for peer, prepare in round_.prepares() if peer in missing]

    def round_is_late(self, now: float) -> list[Instruction]:
        run, round_ = self._run, self._run.round
        if round_ is None:
            return []
        moved_bytes, moves_on = worth.moved_bytes(run, round_), self._has_looked
        self._has_looked = True
        if moved_bytes != self._moved_bytes:  # what is on its way is not sent again
            self._moved_bytes = moved_bytes
            if moves_on and now - round_.began_at >= worth.longest_round_s(run, round_):
                return self._go_on_without_the_slowest(round_, now)
            run.agenda.set(("round", None), now + LOOK_S)
            return self.prepare_again()
        called = self._call_others(round_, now)
        missing = [*self.suspects(), *self._lone_ones_beside_others(round_)]
        late = self._missing.again(missing, now)
        reason = "the reduce waited for it again and again, in vain"
        self._charge_all(late, reason, self._missing.waited_s(now))
        void = self._void_round(f"the reduce is late; waiting for {round_.missing()}")
        return [*void, *called]

    def _lone_ones_beside_others(self, round_: Round) -> list[PeerId]:
        """Return those who are alone in a stage and late, where another one is about to come in."""
        run, late = self._run, list[PeerId]()
        for stage in round_.alone():
            admitted = run.members.of_stage(stage, Membership.ADMITTED)
            if any(map(self._admitting.could_serve, admitted)):
                late.append(round_.rosters[stage][0][0])
        return late

    def _call_others(self, round_: Round, now: float) -> list[Instruction]:
        """Let those in who could do the work of one that is alone and late. Some were done without
        in vain, as it was late as well; some only rest because they are slow."""
        run, instructions = self._run, list[Instruction]()
        for stage in round_.alone():
            lone = round_.rosters[stage][0][0]
            for member in run.members.of_stage(stage, Membership.SEEN):
                was_here = member.peer in self._missing.done_without
                is_barred = bool(run.conduct.faults(member.peer)) and not was_here
                if is_barred or not self._admitting.could_serve(member):
                    continue
                if was_here:
                    run.conduct.acquit(member.peer)
                    run.conduct.fault(lone, run.version, now)
                instructions.append(self._admitting.admit(member, (), now))
        return instructions

    def _go_on_without_the_slowest(self, round_: Round, now: float) -> list[Instruction]:
        """Charge whom it waits for: its parts move, but steps would take many times as long."""
        slowest, seconds = worth.slowest(self._run, round_), now - round_.began_at
        if slowest is not None:
            self._run.charge(slowest.peer, f"the reduce has waited {seconds:.0f} s for it", "slow")
            return []
        return self._void_round(f"the reduce takes {seconds:.0f} s; waiting for {round_.missing()}")

    def _round_took(self, round_: Round, now: float) -> None:
        """Charge whoever makes rounds longer than it is worth, when that happens again."""
        run, seconds = self._run, now - round_.began_at
        slowest = worth.slowest(run, round_)
        for peer in round_.members:
            member = run.members.get(peer)
            if member is not None and member is not slowest:
                member.dear = 0
        if slowest is None:
            return
        is_dear = seconds > worth.most_round_s(run, slowest)
        slowest.dear = slowest.dear + 1 if is_dear else 0
        if slowest.dear >= worth.DEAR:
            run.charge(slowest.peer, f"the reduce has waited {seconds:.0f} s for it", "slow")

    def _step_took(self, round_: Round, seconds: float) -> None:
        """Charge whoever makes steps longer than it is worth, by whatever it is slow in."""
        run = self._run
        counts = not (run.was_held_up or run.void_rounds)
        longer = self._comparing.step_took(round_.members.keys(), seconds, counts=counts)
        member = run.members.get(longer.peer) if longer is not None else None
        if longer is None or member is None:
            return
        _, takes_s, before_s = longer
        member.longer_s = takes_s, before_s
        reason = f"steps take {takes_s:.0f} s with it, and took {before_s:.0f} s before it came"
        run.charge(member.peer, reason, "longer")

    def _charge_all(self, peers: list[PeerId], reason: str, waited_s: float = 0.0) -> None:
        for peer in peers:
            self._run.charge(peer, reason, waited_s=waited_s)

    def _void_round(self, reason: str) -> list[Instruction]:
        """The accumulators are still there: the round is repeated, with those that are left."""
        run = self._run
        run.round = None
        run.void_rounds += 1
        run.phase = Phase.TRAINING
        self._round_is_over()
        return [ReportRecovery(run.version, "void round", 1, reason)]

    def _round_is_over(self) -> None:
        self._run.agenda.cancel(("ask", None))
        self._run.agenda.cancel(("round", None))

    def refused(self, member: Member, message: Refused, now: float) -> list[Instruction]:
        """A round cannot go on as it is."""
        run, round_ = self._run, self._newest
        if round_ is None or (message.epoch, message.step) != run.current:
            return []
        roster = round_.members
        if member.peer not in roster:
            return []
        other, reason = message.unreachable, message.reason[:MOST_SAID]
        if roster.get(other) == member.stage and other != member.peer:
            return self._cannot_reach(member, other, message, now)
        if not self._is_current(message):
            return []
        if dict(round_.rosters[member.stage]).get(message.not_finite):  # a contributor
            culprit = self._not_finite.named(member.peer, message.not_finite)
            return self._do_without(run.round, member.stage, culprit)
        if roster.get(message.unfit) == member.stage and message.unfit != member.peer:
            goes = run.conduct.at_odds(member.peer, message.unfit, run.trust)
            run.charge(goes, reason)
            return []
        run.charge(member.peer, reason)
        return []

    def _cannot_reach(
        self, member: Member, other: PeerId, message: Refused, now: float
    ) -> list[Instruction]:
        run, number, reason = self._run, message.round, message.reason[:MOST_SAID]
        if number > self._rounds:
            return []  # there was no such round
        if not all(run.members.is_ready(peer, member.stage) for peer in (member.peer, other)):
            return []  # it is settled: the step goes on without one of them
        members = run.members.ready(member.stage)
        match self._unreachable.said(member.peer, other, number, members, now):
            case "between them":
                goes = run.conduct.choose_of(member.peer, other, self._num_owned)
                run.charge(goes, reason, "cut")
            case "the other":
                run.charge(other, reason, "cut")
            case "the accuser":
                run.charge(member.peer, f"{reason}, and {other} knows nothing of that")
            case "nobody" if run.round is not None and number == run.round.number:
                return self._void_round(f"{member.peer}: {reason}")
            case "too soon" if run.round is not None and number == run.round.number:
                run.agenda.set(("round", None), now + CONFIRM_S)
        return []

    def _num_owned(self, peer: PeerId) -> int:
        return len(self._run.ledger.owned_by(peer))

    def _do_without(
        self, round_: Round | None, stage: int, suspect: PeerId | None
    ) -> list[Instruction]:
        """The stage's gradient is not finite: repeat the round without whoever it is due to."""
        run = self._run
        if round_ is None:
            return []
        finding = self._not_finite.found(round_, stage, suspect, run.trust)
        if finding.hopeless:
            void = self._void_round(finding.hopeless)
            return [*void, *run.is_not_finite(run.version, finding.hopeless)]
        for peer in finding.acquitted:
            run.conduct.acquit(peer)
        for peer in finding.culprits:
            run.charge(peer, f"its gradient of step {run.version + 1} is not finite")
        for peer in finding.again:
            run.charge(peer, "what it was given was not finite", "cut")
        return []

    def _is_current(self, message: Refused | Prepared | Updated) -> bool:
        run = self._run
        if run.round is None:
            return False
        current = run.epoch, run.round.step, run.round.number
        return (message.epoch, message.step, message.round) == current

    def prepared(self, sender: PeerId, message: Prepared, now: float) -> list[Instruction]:
        run = self._run
        if run.round is None or sender not in run.round.members or not self._is_current(message):
            return []
        run.round.prepared.setdefault(sender, message)
        run.came((sender, "prepared"), now)
        if run.round.norm is not None or not run.round.is_prepared:
            return []
        return self._all_prepared(run.round, now)

    def _all_prepared(self, round_: Round, now: float) -> list[Instruction]:
        """Go on with the norm of the whole model: let owners update, where they do, or apply."""
        run = self._run
        odd = round_.odd_ones(run.trust)
        if odd:
            self._charge_all(odd, f"its gradient of step {run.version + 1} is not the others'")
            return []
        bad = round_.not_finite()
        if bad is not None:
            return self._do_without(round_, bad, None)
        round_.norm = round_.whole_norm()
        if not round_.by_owners:
            return self._apply(round_, round_.norm, now)
        self._wait_for(round_, now)
        return [Send(peer, update) for peer, update in round_.updates()]

    def updated(self, sender: PeerId, message: Updated, now: float) -> list[Instruction]:
        """A member holds what the owners have made of its stage."""
        run, round_ = self._run, self._run.round
        if round_ is None or round_.norm is None or not self._is_current(message):
            return []
        if round_.members.get(sender) not in round_.by_owners:
            return []
        round_.updated.setdefault(sender, message)
        run.came((sender, "updated"), now)
        if round_.missing():
            return []
        odd = round_.odd_updates(run.trust)
        if odd:
            self._charge_all(odd, f"its update of step {run.version + 1} is not the others'")
            return []
        return self._apply(round_, round_.norm, now)

    # ------------------------------------------------------------------ apply

    def _apply(self, round_: Round, norm: float, now: float) -> list[Instruction]:
        """Announce the global norm, as all stages are prepared, and go on to the next step."""
        run = self._run
        if not run.void_rounds:
            self._round_time.add(now - round_.began_at)
        apply = Apply(run.epoch, run.version, round_.number, norm, False)
        copied_stages = self._copied_stages(now)
        run.saving.snapshots += bool(copied_stages)
        run.commit = Commit(
            version=run.version + 1,
            num_stages=run.num_stages,
            expected=round_.members,
            apply=apply,
            agreed=tuple(map(round_.agreed, range(run.num_stages))),
            copied_stages=copied_stages,
            loss=run.ledger.loss,
            tokens=run.ledger.tokens,
            seconds=now - run.step_began_at,
            checkpoint=self._is_to_be_saved and run.saving.under_way is None,
            skipped=round_.skip,
        )
        self._round_is_over()
        self._round_took(round_, now)
        self._step_took(round_, run.commit.seconds)
        run.commit.patience_s = self._apply_patience_s(run.commit)
        run.agenda.set(("apply", None), now + run.commit.patience_s)
        run.applied_at, run.update = now, (round_.number, norm)
        self._missing_updates.begin(now)
        run.step_took(run.commit.seconds)
        run.version = run.commit.version
        run.digests = ("",) * run.num_stages
        run.round, run.offered = None, None
        self._working.next_step(now)
        return [Send(peer, run.commit.apply_at(stage)) for peer, stage in round_.audience]

    def apply_again(self, now: float) -> list[Instruction]:
        """Tell those again to apply who have not answered."""
        run, commit = self._run, self._run.commit
        if commit is None:
            return []
        commit.retries += 1
        run.agenda.set(("apply", None), now + self._apply_patience_s(commit))
        again: list[Instruction] = [
            Send(peer, commit.apply_at(commit.expected[peer])) for peer in commit.missing()
        ]
        waited_s = self._missing_updates.waited_s(now)
        if not run.apply_time.samples and waited_s < FIRST_UPDATE_S:
            return again
        late = self._missing_updates.again(self.suspects(), now)
        reason = "the commit waited for it again and again, in vain"
        self._charge_all(late, reason, waited_s)
        if commit.retries < TWICE:
            return again
        return [*again, ReportLate(run.version, now - run.applied_at, self.awaited() or "")]

    def _apply_patience_s(self, commit: Commit) -> float:
        """Return how long an update is waited for: as long as its slowest member needs, which is
        longer where a snapshot is taken."""
        times, tries = self._run.apply_times, commit.retries
        waits_s = (
            times[commit.is_copied_by(peer)].patience_s(peer, ANSWER_S, tries)
            for peer in commit.missing()
        )
        return max(waits_s, default=ANSWER_S)

    def applied(self, member: Member, version: int, digest: str, now: float) -> list[Instruction]:
        commit = self._run.commit
        if commit is None or version != commit.version or member.peer not in commit.expected:
            return []
        if member.peer not in commit.applied:
            times = self._run.apply_times[commit.is_copied_by(member.peer)]
            times.add_answer(member.peer, now - self._run.applied_at, commit.patience_s)
        commit.applied.setdefault(member.peer, digest)
        member.held = (version, commit.applied[member.peer])
        self._run.came((member.peer, "applied"), now)
        return self._close(commit, now)

    def go_on_without(self, peer: PeerId, why: str, now: float) -> list[Instruction]:
        """A member is lost, whatever of a commit is under way."""
        run = self._run
        instructions: list[Instruction] = []
        if run.round is not None and peer in run.round.members:
            instructions += self._void_round(why)
        if run.commit is not None and peer in run.commit.expected:
            run.commit.without(peer)
            instructions += self._close(run.commit, now)
        return instructions

    def _close(self, commit: Commit, now: float) -> list[Instruction]:
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
        run.commit = None
        run.agenda.cancel(("apply", None))
        if not commit.retries:
            run.apply_time.add(now - run.applied_at)
        return self._committed(commit, now)

    def _committed(self, commit: Commit, now: float) -> list[Instruction]:
        """End the commit: every replica holds the new version."""
        run = self._run
        report, digests = commit.report(), commit.digests
        instructions: list[Instruction] = [report]
        run.digests = tuple(replicas[0][1] if replicas else "" for replicas in digests)
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

    # ------------------------------------------------------------------ what is waited for

    def suspects(self) -> list[PeerId]:
        """Return whom a commit that is under way waits for, and could do without."""
        run = self._run
        if run.round is not None:
            return run.round.suspects(lambda peers: blamed(peers, run.members.waits_for, run.trust))
        if run.commit is None:
            return []
        return [*run.commit.suspects(), *self._late_beside_newcomers(run.commit)]

    def _late_beside_newcomers(self, commit: Commit) -> list[PeerId]:
        """Return who has not applied a version that none of its stage has, but for newcomers who
        are let in once it is committed."""
        run = self._run
        done = {commit.expected[peer] for peer in commit.applied}
        stages = {commit.expected[peer] for peer in commit.missing()} - done
        admitted = [m for m in run.members.in_state(Membership.ADMITTED) if m.stage in stages]
        served = {m.stage for m in admitted if self._admitting.could_serve(m)}
        return [peer for peer in commit.missing() if commit.expected[peer] in served]

    def awaited(self) -> str | None:
        """Return what a commit that is under way is waiting for."""
        run = self._run
        if run.round is not None:
            what = "PREPARED" if run.round.norm is None else "UPDATED"
            return f"{what} of {run.round.missing()}"
        if run.commit is not None:
            return f"APPLIED of {run.commit.missing()}"
        if run.ledger.complete:
            joining = [member.peer for member in run.members.in_state(Membership.ADMITTED)]
            return f"newcomers to load their state: {joining}"
        return None
