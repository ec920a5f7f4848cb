"""The objections to a round by its members, and what follows from them (`disputes`).

Rules:
- Who cannot reach another member says so; the step goes on without one of them.
- A gradient that is not finite is somebody's; without whoever that is the round is repeated.
- Whoever says that its record differs, or that what an owner made does not fit, is at fault, or
  the other one is.
"""

from __future__ import annotations

from swarmrt.ids import SeatId
from swarmrt.messages import Refused
from swarmrt.scheduler.instructions import Instruction
from swarmrt.scheduler.timing.times import CONFIRM_S
from swarmrt.scheduler.trainer.closing.disputes import NotFinite, Unreachable
from swarmrt.scheduler.trainer.closing.sync.prepare_round import PrepareRound
from swarmrt.scheduler.trainer.closing.sync.voiding import void_round
from swarmrt.scheduler.trainer.membership.members import Member
from swarmrt.scheduler.trainer.plausible import MOST_SAID
from swarmrt.scheduler.trainer.run import Run


class Objections:
    def __init__(self, run: Run) -> None:
        self._run = run
        self.begin_step()

    def begin_step(self) -> None:
        """Forget what was said in the step before."""
        self._unreachable, self._not_finite = Unreachable(), NotFinite()

    def refused(
        self, newest: PrepareRound | None, member: Member, message: Refused, now: float
    ) -> list[Instruction]:
        """A round cannot go on as it is."""
        run = self._run
        if newest is None or (message.epoch, message.step) != run.current:
            return []
        roster = newest.members
        if member.peer not in roster:
            return []
        other, reason = message.unreachable, message.reason[:MOST_SAID]
        if roster.get(other) == member.stage and other != member.peer:
            return self._cannot_reach(newest, member, other, message, now)
        if run.round is None or not run.round.is_meant(message):
            return []
        if dict(run.round.rosters[member.stage]).get(message.not_finite):  # a contributor
            culprit = self._not_finite.named(member.peer, message.not_finite)
            return self.do_without(run.round, member.stage, culprit)
        if roster.get(message.unfit) == member.stage and message.unfit != member.peer:
            goes = run.conduct.at_odds(member.peer, message.unfit, run.trust)
            run.charge(goes, reason)
            return []
        run.charge(member.peer, reason)
        return []

    def _cannot_reach(
        self, newest: PrepareRound, member: Member, other: SeatId, message: Refused, now: float
    ) -> list[Instruction]:
        run, number, reason = self._run, message.round, message.reason[:MOST_SAID]
        if number > newest.number:
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
                return void_round(run, f"{member.peer}: {reason}")
            case "too soon" if run.round is not None and number == run.round.number:
                run.agenda.set(("round", None), now + CONFIRM_S)
        return []

    def _num_owned(self, peer: SeatId) -> int:
        return len(self._run.ledger.owned_by(peer))

    def do_without(
        self, round_: PrepareRound, stage: int, suspect: SeatId | None
    ) -> list[Instruction]:
        """The stage's gradient is not finite: repeat the round without whoever it is due to."""
        run = self._run
        finding = self._not_finite.found(round_, stage, suspect, run.trust)
        if finding.hopeless:
            void = void_round(run, finding.hopeless)
            return [*void, *run.is_not_finite(run.version, finding.hopeless)]
        for peer in finding.acquitted:
            run.conduct.acquit(peer)
        for peer in finding.culprits:
            run.charge(peer, f"its gradient of step {run.version + 1} is not finite")
        for peer in finding.again:
            run.charge(peer, "what it was given was not finite", "cut")
        return []
