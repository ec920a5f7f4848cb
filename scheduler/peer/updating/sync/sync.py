"""A seat's updates where all replicas of a stage commit together: prepare, perhaps update, apply.

Rules:
- The reduce starts only if the trainer's roster matches the record.
- A step is skipped once nothing of it runs.
- Who has other weights than those on which the stage has agreed begins anew.
- Words that come again are answered again.
"""

from __future__ import annotations

from swarmrt.ids import PeerId, SeatId
from swarmrt.messages import (
    Admit,
    Applied,
    Apply,
    Part,
    Prepare,
    Prepared,
    Refused,
    Update,
    Updated,
)
from swarmrt.scheduler.events import (
    GradientCombined,
    PartSummed,
    PartUnfit,
    PartUpdated,
    StateLoaded,
    Stepped,
    UpdateJoined,
)
from swarmrt.scheduler.instructions import (
    DropRound,
    Instruction,
    LoadState,
    Send,
    StepOptimizer,
)
from swarmrt.scheduler.local_work import NO_LOCAL_WORK
from swarmrt.scheduler.peer.membership.terms import Terms
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.strategy import Outcome, Updating, Word
from swarmrt.scheduler.peer.updating.sync.versions import SyncVersions
from swarmrt.scheduler.peer.work.computing import Computing
from swarmrt.scheduler.peer.work.outputs import Outputs


class Sync(Updating):
    def __init__(
        self,
        seat: Seat,
        versions: SyncVersions,
        computing: Computing,
        outputs: Outputs,
        terms: Terms,
    ) -> None:
        self._seat, self._computing, self._outputs = seat, computing, outputs
        self._versions, self._reducing, self._terms = versions, versions.reducing, terms
        self._awaited_digest = ""  # of the version that it was let in at, where it is known
        self._local = NO_LOCAL_WORK  # since the version before this one

    # ------------------------------------------------------------------ what happens

    def heard(self, sender: PeerId, word: Word, now: float) -> list[Instruction]:
        match word:
            case Prepare():
                return self._prepare(word)
            case Part():
                return self._part(sender, word)
            case Update():
                return self._update(word)
            case Apply():
                return self._apply(word)

    def happened(self, outcome: Outcome, now: float) -> list[Instruction]:
        match outcome:
            case PartUnfit():
                return self._part_unfit(outcome)
            case PartSummed():
                return self._part_summed(outcome)
            case GradientCombined():
                return self._combined(outcome)
            case PartUpdated():
                return self._part_updated(outcome)
            case UpdateJoined():
                return self._joined(outcome)
            case Stepped():
                return self._stepped(outcome)
        return []

    def go_on(self) -> list[Instruction]:
        """Combine or apply what is ready for the version that is here."""
        seat = self._seat
        if not seat.is_serving or seat.is_stepping:
            return []
        if self._reducing.is_spoilt(seat.version):
            return [*self._reducing.clear(), *self._terms.begin_anew()]
        instructions = self._reducing.next(seat.version)
        for step in instructions:
            if isinstance(step, StepOptimizer):
                seat.is_stepping, seat.made_by = True, (step.round, step.norm)
        return instructions

    # ------------------------------------------------------------------ prepare

    def _prepare(self, message: Prepare) -> list[Instruction]:
        """Take part in a round, listen to it, or refuse it."""
        seat = self._seat
        if message.epoch != seat.epoch or message.step < seat.version:
            return []
        if seat.me in message.listeners:
            return self._reducing.begin(message) + self.go_on()
        round_ = self._reducing.round(message.step)
        if round_ is not None and round_.prepare == message:
            return self._prepared(message.step)
        refusal = self._disagreement(message)
        if refusal:
            key = (message.step, message.round)
            return [seat.to_trainer(Refused(seat.epoch, *key, refusal))]
        seat.replicas = len(message.roster)
        self._outputs.next.wiring.one_of(seat.replicas)
        if message.skip:
            return self._skip(message)
        return self._reducing.begin(message) + self.go_on()

    def _disagreement(self, message: Prepare) -> str:
        """Return why the roster is not what this peer did; empty if it is."""
        seat = self._seat
        roster = dict(message.roster)
        if seat.me not in roster:
            return "not on the roster"
        if not seat.is_serving or message.step != seat.version:
            return f"does not serve version {message.step}"
        if message.skip:
            return ""
        listed = set(roster[seat.me])
        accumulated = self._versions.accumulators.indices(message.step)
        if accumulated != listed:
            return f"accumulated {sorted(accumulated)}, the roster says {sorted(listed)}"
        return ""

    def _skip(self, message: Prepare) -> list[Instruction]:
        """Leave the step alone: what waits of it is dropped, and what runs ends first."""
        self._versions.skipping = message.step
        drops = [
            self._outputs.drop(task)
            for task in self._computing.tasks
            if self._versions.skips(task.microbatch) and not task.is_running
        ]
        return [*self._reducing.begin(message), *drops, *self._computing.compute()]

    def settle(self) -> list[Instruction]:
        """Say that the step that is skipped may be, once nothing of it runs."""
        seat, versions = self._seat, self._versions
        if versions.skipping != seat.version:
            return []
        round_ = self._reducing.round(seat.version)
        if round_ is None or not round_.prepare.skip or round_.combined is not None:
            return []
        skipped = (task for task in self._computing.tasks if versions.skips(task.microbatch))
        if any(task.is_running for task in skipped):
            return []
        round_.combined = ("", 0.0)
        return [*self._prepared(seat.version), *self.go_on()]

    def _prepared(self, step: int) -> list[Instruction]:
        """Say that the step's mean gradient is here, if it is. Listeners say so as well."""
        seat = self._seat
        round_ = self._reducing.round(step)
        if round_ is None or round_.combined is None:
            return []
        return [seat.to_trainer(Prepared(seat.epoch, *round_.key, *round_.combined))]

    # ------------------------------------------------------------------ its parts

    def _part(self, sender: PeerId, message: Part) -> list[Instruction]:
        if message.epoch != self._seat.epoch:
            return []
        return self._reducing.part(sender, message, self._seat.version) + self.go_on()

    def _part_summed(self, event: PartSummed) -> list[Instruction]:
        return [*self._not_finite(event), *self._reducing.part_summed(event), *self.go_on()]

    def _part_unfit(self, event: PartUnfit) -> list[Instruction]:
        """Tell the trainer, who decides who goes: the round cannot be completed with it."""
        round_ = self._reducing.round(event.step)
        if round_ is None or round_.prepare.round != event.round:
            return []
        reason = f"a part of {event.sender} {event.reason}"
        key = (event.step, event.round)
        return [self._seat.to_trainer(Refused(self._seat.epoch, *key, reason, unfit=event.sender))]

    def not_sent(self, to: SeatId, part: Part) -> list[Instruction]:
        """Tell the trainer that a member cannot be reached."""
        seat = self._seat
        round_ = self._reducing.round(part.step)
        if part.epoch != seat.epoch or round_ is None or to not in round_.members:
            return []  # void by now, or only a listener
        reason = f"{to} cannot be reached"
        return [seat.to_trainer(Refused(seat.epoch, part.step, part.round, reason, to))]

    def _combined(self, event: GradientCombined) -> list[Instruction]:
        if self._reducing.combined(event) is None:
            return [DropRound(event.step, event.round)]
        return self._prepared(event.step) + self.go_on()

    def _not_finite(self, event: PartSummed) -> list[Instruction]:
        """Tell the trainer whose slice is not, for it to do without that one."""
        seat, culprit = self._seat, event.not_finite
        if not culprit:
            return []
        reason = f"the gradient of step {event.step + 1} by {culprit} is not finite"
        refused = Refused(seat.epoch, event.step, event.round, reason, not_finite=culprit)
        return [seat.to_trainer(refused)]

    # ------------------------------------------------------------------ updates by owners

    def _update(self, message: Update) -> list[Instruction]:
        """Make the parts that this peer owns, or say again that all of them are here."""
        if message.epoch != self._seat.epoch or message.step != self._seat.version:
            return []
        return self._updated(message.step) or self._reducing.update(message)

    def _part_updated(self, event: PartUpdated) -> list[Instruction]:
        return [*self._reducing.part_updated(event), *self.go_on()]

    def _joined(self, event: UpdateJoined) -> list[Instruction]:
        if self._reducing.joined(event) is None:
            return [DropRound(event.step, event.round)]
        return self._updated(event.step) + self.go_on()

    def _updated(self, step: int) -> list[Instruction]:
        """Say that the next version's state is here, if it is."""
        seat = self._seat
        round_ = self._reducing.round(step)
        if round_ is None or round_.update is None:
            return []
        digest = round_.update.digest
        return [] if digest is None else [seat.to_trainer(Updated(seat.epoch, *round_.key, digest))]

    # ------------------------------------------------------------------ apply

    def _apply(self, message: Apply) -> list[Instruction]:
        """Make the next version, as soon as all that it needs is here."""
        seat = self._seat
        if message.epoch != seat.epoch:
            return []
        if message.step == seat.version - 1 and seat.is_serving:
            return [self._applied()]
        if message.step < seat.version:
            return []
        self._reducing.apply(message)
        if seat.is_serving:
            return self.go_on()
        return self._roll_forward(message)

    def _roll_forward(self, message: Apply) -> list[Instruction]:
        """Apply what is prepared here: a new incarnation has found that others have."""
        seat = self._seat
        prepared = self._reducing.prepared(seat.version)
        is_here = message.step == seat.version and message.round == prepared
        if seat.state != "joining" or seat.is_stepping or not is_here:
            return []
        round_ = self._reducing.round(message.step)
        assert round_ is not None
        seat.is_stepping, seat.made_by = True, (message.round, message.norm)
        return [round_.step(message.norm, snapshot=message.snapshot)]

    def _stepped(self, event: Stepped) -> list[Instruction]:
        """Go on with the version that is made."""
        seat = self._seat
        seat.is_stepping, self._versions.skipping = False, -1
        seat.version, seat.digest, self._local = event.version, event.digest, event.local
        drops = self._reducing.stepped(seat.version)
        drops += [self._outputs.drop(task) for task in self._computing.forget_what_is_over()]
        return [self._applied(), *drops]

    def _applied(self) -> Send:
        """Say that the version that is here is made."""
        seat = self._seat
        work = () if self._local == NO_LOCAL_WORK else self._local  # which logs leave out
        return seat.to_trainer(Applied(seat.epoch, seat.version, seat.digest, *work))

    # ------------------------------------------------------------------ what a joiner needs

    def admitted(self, message: Admit) -> LoadState | None:
        seat = self._seat
        self._awaited_digest = message.digest
        seat.made_by = (message.applied, message.norm)
        is_held = bool(seat.digest) and message.digest in ("", seat.digest)
        if message.version == seat.version and is_held:
            return None
        seat.version, seat.digest = message.version, ""  # until it is here
        return LoadState(message.version, message.donors, message.digest)

    def loaded(self, event: StateLoaded) -> bool:
        if self._awaited_digest not in ("", event.digest):
            return False
        self._seat.digest, self._local = event.digest, NO_LOCAL_WORK
        return True
