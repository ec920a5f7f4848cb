"""The knowledge that the trainer has of its run: all that decides anything shares it."""

from __future__ import annotations

from collections.abc import Iterable

from swarmrt.ids import MicrobatchId, SeatId
from swarmrt.messages import Finish
from swarmrt.scheduler import seals
from swarmrt.scheduler.instructions import Instruction, ReportRecovery, Send, Stop
from swarmrt.scheduler.settings import TrainerSettings
from swarmrt.scheduler.timing.agenda import Agenda
from swarmrt.scheduler.trainer.course.course import Course, RunPhase
from swarmrt.scheduler.trainer.course.pace import Pace
from swarmrt.scheduler.trainer.evaluation import Evaluation
from swarmrt.scheduler.trainer.membership.arranging.processes import Processes
from swarmrt.scheduler.trainer.membership.conduct import Charge, Conduct, Kind
from swarmrt.scheduler.trainer.membership.members import Member, Members, Membership
from swarmrt.scheduler.trainer.membership.unable import Unable
from swarmrt.scheduler.trainer.own_link import OwnLink
from swarmrt.scheduler.trainer.plausible import Known
from swarmrt.scheduler.trainer.saving import Saving
from swarmrt.scheduler.trainer.work.books import Books
from swarmrt.scheduler.trainer.work.dispatch import Dispatch, Late
from swarmrt.scheduler.trainer.work.ledger import Grant, Ledger
from swarmrt.scheduler.trainer.work.receipts import Receipts
from swarmrt.scheduler.trainer.work.step_sizes import StepSizes
from swarmrt.scheduler.trainer.work.window import Window, window_of_own_steps


class Run(Course):
    """The course of a run, and what is known along it."""

    def __init__(self, settings: TrainerSettings) -> None:
        super().__init__(settings)
        self.settings = settings
        self.num_stages = len(settings.needed)
        self.needed = settings.needed
        self.by_owners = set(settings.by_owners)  # stages whose replicas round differently
        self.known = Known(settings.microbatch_tokens, settings.least_loss)
        self.weights = settings.weights or (1.0,) * self.num_stages
        self._secret = bytes.fromhex(settings.secret)
        self.pace, self.own_link = Pace(), OwnLink()
        self.agenda: Agenda[Late] = Agenda("overdue")
        # who takes part
        self.members = Members(self.num_stages)
        self.processes = Processes()
        self.unable = Unable(self.num_stages)
        self.watched: dict[SeatId, float] = {}  # closely, and until when
        self.conduct = Conduct()
        self.charges: list[Charge] = []  # to be dealt with before anything else goes on
        # what is worked on
        self.sizes = StepSizes(settings.microbatches, settings.every_s, settings.least_microbatches)
        self.books = Books(self.sizes, self.num_stages)
        self.books.open(self.version)
        has_own_steps = settings.averages and settings.staleness  # else replicas have momenta
        known = 0 if settings.every_s else settings.microbatches  # in each step
        window = window_of_own_steps(known) if has_own_steps else Window()
        self.dispatch = Dispatch(settings.seed, settings.wiring, window)
        self.receipts = Receipts(self.agenda)
        self.evaluation = Evaluation(self.version, 0)
        self.saving = Saving(settings.start_version, self.digests)

    @property
    def ledger(self) -> Ledger:
        """The ledger of the step that is next to be committed."""
        return self.books[self.version]

    def charge(
        self, peer: SeatId, reason: str, kind: Kind = "fault", waited_s: float = 0.0
    ) -> None:
        """Hold something against a member: it is fenced once this event is dealt with."""
        self.charges.append(Charge(peer, reason, kind, waited_s))

    def charge_all(self, peers: Iterable[SeatId], reason: str, waited_s: float = 0.0) -> None:
        """Hold a fault against each of these."""
        for peer in peers:
            self.charge(peer, reason, waited_s=waited_s)

    def trust(self, peer: SeatId) -> tuple[int, int, SeatId]:
        """The less, the more: by its faults, then by how long ago it was admitted."""
        member = self.members.get(peer)
        return self.conduct.faults(peer), member.term if member is not None else 0, peer

    def key_of(self, peer: SeatId) -> str:
        """Return the key of seals for a member, in hex; empty when grants have none."""
        return seals.key_of(self._secret, peer) if self._secret else ""

    def seals_of(self, microbatch: MicrobatchId, grant: Grant) -> str:
        """Return the seals of a grant, one for each peer of its path."""
        if not self._secret:
            return ""
        what = seals.sealed(self.epoch, microbatch, grant.path, grant.need)
        members = [self.members.get(peer) for peer in grant.path]
        made = [seals.seal(m.key, what) if m is not None else seals.NONE for m in members]
        return b"".join(made).hex()

    def has_others(self, peer: SeatId, stage: int) -> bool:
        """Return whether the stage has a ready replica beside this one."""
        return any(other != peer for other in self.members.ready(stage))

    def is_current(self, member: Member, epoch: int, term: int) -> bool:
        """Return whether that is what the member was admitted in."""
        return (epoch, term) == (self.epoch, member.term) and member.state is not Membership.SEEN

    def is_open(self, microbatch: MicrobatchId) -> bool:
        """Return whether it is to be computed now."""
        if microbatch.held_out:
            return microbatch.runs_on(self.settings.staleness) == self.version
        return self.books.of(microbatch) is not None

    def may_be_computed_by(self, member: Member) -> list[MicrobatchId]:
        """Return what is under way and may be at this member: nobody else has it at its stage."""
        return [
            microbatch
            for microbatch in self.dispatch.under_way()
            if (ledger := self.books.of(microbatch)) is None
            or ledger.is_left_to(member.peer, microbatch.index, member.stage)
        ]

    def begin_books(self) -> None:
        """Open the books of the current step, of which nothing is done."""
        self.books.clear()
        self.books.open(self.version)
        self.receipts.clear()
        self.pace.begin_step()

    def leave(self, reason: str) -> list[Instruction]:
        """End the run. Peers are told that it is over if a checkpoint has all that they hold; else
        they keep it for the next incarnation."""
        is_saved = self.phase is not RunPhase.HAILING and self.saving.version == self.version
        seats = [member.peer for member in self.members]
        told = [*seats, *(process.peer for process in self.processes)] if is_saved else []
        self.end()
        return [*(Send(peer, Finish(reason)) for peer in told), Stop(reason, error=False)]

    def is_not_finite(
        self, step: int, reason: str, microbatches: tuple[MicrobatchId, ...] = ()
    ) -> list[Instruction]:
        """A step's gradient or loss is not finite, whoever computes it: it is what it is computed
        from. Skip the step, or give up, as the run's owner wants it."""
        if self.settings.not_finite == "stop":
            return [self.give_up(reason, microbatches)]
        for microbatch in self.books.skip(step):
            self.agenda.cancel(("flight", microbatch))
        self.dispatch.drop(step, but_held_out=True)
        self.receipts.drop(step)
        return [ReportRecovery(step, "skipped", 1, reason)]

    def give_up(self, reason: str, microbatches: tuple[MicrobatchId, ...] = ()) -> Stop:
        """End the run with an error, which is about these microbatches, if about any."""
        self.end()
        return Stop(reason, error=True, microbatches=microbatches)
