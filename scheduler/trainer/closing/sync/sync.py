"""Committing a step.

Rules:
- Commit has two phases. Prepare: every stage reduces over its roster. Apply, once *all* stages are
  prepared: one global norm, one update. Where replicas are unlike, owners of parts make the update
  before that, and Apply means to adopt it.
- A round that loses a member, or is late, is void, and repeated with those that are left.
- Nobody waits for a newcomer, but for the little time of `holding`, and of `handing_on`.
- What a lost member has done in the step is done again by others.
- What becomes of members is decided elsewhere: here they are charged.
"""

from __future__ import annotations

from swarmrt.ids import PeerId, SeatId
from swarmrt.messages import Applied, Prepared, Refused, Updated
from swarmrt.scheduler.instructions import Instruction, Send
from swarmrt.scheduler.trainer.closing import worth
from swarmrt.scheduler.trainer.closing.holding import Holding
from swarmrt.scheduler.trainer.closing.strategy import Answer, Closing
from swarmrt.scheduler.trainer.closing.sync.applying import Applying
from swarmrt.scheduler.trainer.closing.sync.handing_on import HandingOn
from swarmrt.scheduler.trainer.closing.sync.objections import Objections
from swarmrt.scheduler.trainer.closing.sync.prepare_round import PrepareRound
from swarmrt.scheduler.trainer.closing.sync.round_patience import RoundPatience
from swarmrt.scheduler.trainer.closing.sync.voiding import void_round
from swarmrt.scheduler.trainer.membership.joining.admitting import Admitting
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run
from swarmrt.scheduler.trainer.work.microbatches.working import Working


class Sync(Closing):
    def __init__(self, run: Run, admitting: Admitting, working: Working) -> None:
        self._run = run
        self._rounds = run.settings.epoch << 32  # so that numbers are unique over incarnations
        self._newest: PrepareRound | None = None  # that was begun, though it may be void by now
        self._holding, self._objections = Holding(run), Objections(run)
        self._handing_on = HandingOn(run)
        self._patience = RoundPatience(run, admitting)
        self._applying = Applying(run, admitting, working, self._patience)

    @property
    def is_due(self) -> bool:
        """Return whether every microbatch of the step has all its receipts, or it is skipped."""
        return self._run.ledger.complete or self._run.books.is_skipped(self._run.version)

    def void(self, peer: SeatId) -> int:
        """Void what it has in the open steps: others do it again, so nothing is lost for good."""
        return self._run.books.fence(peer)

    # ------------------------------------------------------------------ prepare

    def begin(self, now: float) -> list[Instruction]:
        """Ask every stage to reduce. The step is complete, and the last commit whole."""
        run = self._run
        if min(run.members.counts) == 0:
            return []
        if self._holding.is_held(now):
            return []
        admitted = run.members.in_state(Membership.ADMITTED)
        joining = [member for member in admitted if not worth.is_too_far_behind(run, member)]
        self._rounds += 1
        stages, skip = range(run.num_stages), run.books.is_skipped(run.version)
        rosters = tuple(run.ledger.roster(s, run.members.ready(s)) for s in stages)
        listeners = tuple(tuple(m.peer for m in joining if m.stage == s) for s in stages)
        shared = {s for s in stages if len(rosters[s]) + len(listeners[s]) > 1}
        if self._newest is None or (self._newest.epoch, self._newest.step) != run.current:
            self._patience.begin_step(now)
            self._objections.begin_step()
        round_ = self._newest = PrepareRound(
            run.epoch,
            run.version,
            self._rounds,
            rosters=rosters,
            listeners=listeners,
            tokens=self._weight(skip=skip),
            began_at=now,
            skip=skip,
            by_owners=frozenset() if skip else frozenset(run.by_owners & shared),
        )
        run.prepare(round_)
        run.pace.round_began_at = now
        self._patience.begin(round_, now)
        return [Send(peer, prepare) for peer, prepare in round_.prepares()]

    def _weight(self, *, skip: bool) -> int:
        """Return what the sum of a step is divided by: its tokens, or its microbatches where each
        replica gives how far its own steps have moved it for each of them."""
        run = self._run
        is_local = run.version >= run.settings.local_from and not skip
        return run.ledger.microbatches if is_local else run.ledger.tokens

    def _prepared(self, sender: PeerId, message: Prepared, now: float) -> list[Instruction]:
        run = self._run
        if run.round is None or not run.round.is_meant(message):
            return []
        if sender not in run.round.members:
            return self._handed_on(run.round, sender, message, now)
        run.round.prepared.setdefault(sender, message)
        run.pace.came((sender, "prepared"), now)
        if run.round.norm is not None or not run.round.is_prepared:
            return []
        return self._all_prepared(run.round, now)

    def _all_prepared(self, round_: PrepareRound, now: float) -> list[Instruction]:
        """Go on with the norm of the whole model: let owners update, where they do, or apply."""
        run = self._run
        odd = round_.odd_ones(run.trust)
        if odd:
            run.charge_all(odd, f"its gradient of step {run.version + 1} is not the others'")
            return []
        bad = round_.not_finite()
        if bad is not None:
            return self._objections.do_without(round_, bad, None)
        round_.norm = round_.whole_norm()
        if not round_.by_owners:
            return self._apply(round_, now)
        self._patience.begin(round_, now)
        return [Send(peer, update) for peer, update in round_.updates()]

    def _updated(self, sender: PeerId, message: Updated, now: float) -> list[Instruction]:
        """A member holds what the owners have made of its stage."""
        run, round_ = self._run, self._run.round
        if round_ is None or round_.norm is None or not round_.is_meant(message):
            return []
        if sender not in round_.members:
            return self._handed_on(round_, sender, message, now)
        if round_.members[sender] not in round_.by_owners or round_.held_at is not None:
            return []
        round_.updated.setdefault(sender, message)
        run.pace.came((sender, "updated"), now)
        if round_.missing():
            return []
        odd = round_.odd_updates(run.trust)
        if odd:
            run.charge_all(odd, f"its update of step {run.version + 1} is not the others'")
            return []
        return self._apply(round_, now)

    def _apply(self, round_: PrepareRound, now: float) -> list[Instruction]:
        """Announce the version, unless that is held until another one could make it as well."""
        assert round_.norm is not None
        if self._handing_on.hold(round_, now):
            return []
        return self._applying.apply(round_, round_.norm, now)

    def _handed_on(
        self, round_: PrepareRound, listener: SeatId, word: Prepared | Updated, now: float
    ) -> list[Instruction]:
        """A listener has what it needs for the next version."""
        round_.is_here(listener, word)
        return self._let_go(round_, now) if self._handing_on.is_over(round_) else []

    def _let_go(self, round_: PrepareRound, now: float) -> list[Instruction]:
        assert round_.norm is not None
        self._handing_on.let_go(round_, now)
        return self._applying.apply(round_, round_.norm, now)

    # ------------------------------------------------------------------ both phases

    def heard(self, member: Member, answer: Answer, now: float) -> list[Instruction]:
        match answer:
            case Prepared():
                return self._prepared(member.peer, answer, now)
            case Updated():
                return self._updated(member.peer, answer, now)
            case Refused():
                return self._objections.refused(self._newest, member, answer, now)
            case Applied():
                return self._applying.applied(member, answer, now)

    def is_late(self, what: str, now: float) -> list[Instruction]:
        match what:
            case "ask":
                return self._patience.ask_again()
            case "round":
                return self._patience.is_late(now)
            case "hand on" if self._run.round is not None:
                return self._let_go(self._run.round, now)
            case "apply":
                return self._applying.is_late(now)
        return []

    def go_on_without(self, peer: SeatId, why: str, now: float) -> list[Instruction]:
        """A member is lost, whatever of a commit is under way."""
        run = self._run
        instructions: list[Instruction] = []
        if run.round is not None and peer in run.round.members:
            instructions += void_round(run, why)
        if run.commit is not None and peer in run.commit.expected:
            run.commit.without(peer)
            instructions += self._applying.close_if_whole(run.commit, now)
        return instructions

    def suspects(self) -> list[SeatId]:
        in_round = self._run.round is not None
        return self._patience.suspects() if in_round else self._applying.suspects()

    def awaited(self) -> str | None:
        """Return what a commit that is under way is waiting for."""
        run = self._run
        if run.round is not None:
            what = "PREPARED" if run.round.norm is None else "UPDATED"
            return f"{what} of {run.round.missing()}"
        if run.commit is not None:
            return f"APPLIED of {run.commit.missing()}"
        if run.ledger.complete:
            admitted = run.members.in_state(Membership.ADMITTED)
            joining = [member.peer for member in admitted if not member.is_spare]
            return f"newcomers to load their state: {joining}"
        return None
