"""TrainerCore: every decision of the trainer. Events in, instructions out.

Rules:
- The run begins when every stage has the replicas that were asked for.
- What becomes of peers is decided in `joining` and `fencing`, of microbatches in `working`, of
  versions in `closing`, of a lost state in `rollback`, and when it is over in `ending`. Here each
  event finds who deals with it; then, whatever is possible now is done.
- Whatever is awaited is asked for again when it is overdue. Deadlines are learned.

    HAILING → WAITING → TRAINING ⇄ PREPARING → … → CLOSING → (Stop)
"""

from __future__ import annotations

from swarmrt.ids import MicrobatchId
from swarmrt.messages import (
    Accepted,
    Accumulated,
    Admit,
    Beacon,
    Busy,
    Claim,
    Evaluated,
    Forward,
    Hail,
    Stale,
)
from swarmrt.scheduler.events import (
    CheckpointFailed,
    CheckpointSaved,
    DeadlinePassed,
    Event,
    Expelled,
    Moved,
    MoveRequested,
    PeerLost,
    PeersSeen,
    Received,
    SendFailed,
    Started,
    StopRequested,
)
from swarmrt.scheduler.instructions import Instruction, ReportWaiting, StartDeadline
from swarmrt.scheduler.settings import TrainerSettings
from swarmrt.scheduler.timing.times import REPORT_S, REWIRE_S
from swarmrt.scheduler.trainer.closing.strategy import Closing
from swarmrt.scheduler.trainer.closing.sync.sync import Sync
from swarmrt.scheduler.trainer.course.course import RunPhase
from swarmrt.scheduler.trainer.course.ending import EndOfRun
from swarmrt.scheduler.trainer.course.rollback import Rollback
from swarmrt.scheduler.trainer.course.settling import Settling
from swarmrt.scheduler.trainer.hearing import Hearing
from swarmrt.scheduler.trainer.membership.arranging.arranging import Arranging
from swarmrt.scheduler.trainer.membership.fencing.departures import Departures
from swarmrt.scheduler.trainer.membership.fencing.draining import Draining
from swarmrt.scheduler.trainer.membership.fencing.fencing import Fencing
from swarmrt.scheduler.trainer.membership.fencing.watching import Watching
from swarmrt.scheduler.trainer.membership.islands import Islands
from swarmrt.scheduler.trainer.membership.joining.admitting import Admitting
from swarmrt.scheduler.trainer.membership.joining.beacons import Beacons
from swarmrt.scheduler.trainer.membership.joining.letting_in import LettingIn
from swarmrt.scheduler.trainer.membership.members import Membership
from swarmrt.scheduler.trainer.run import Run
from swarmrt.scheduler.trainer.work.ledger import NOBODY
from swarmrt.scheduler.trainer.work.microbatches.working import Working

OF_WORK = frozenset({Accepted, Accumulated, Busy, Claim, Evaluated, Stale})
"""Messages that bring no newcomer to the version of the others; most are of these."""

OFTEN_NOTHING = frozenset({Accepted, Accumulated, Beacon})
"""Messages of which many make nothing possible: a peer has taken a microbatch, or done it at its
stage; or has beaconed too often."""


class TrainerCore:
    def __init__(self, settings: TrainerSettings) -> None:
        run = self.run = Run(settings)
        admitting = Admitting(run)
        self.working = Working(run)
        self.closing: Closing = Sync(run, admitting, self.working)
        self.fencing = Fencing(run, self.closing)
        self.departures = Departures(run, self.fencing)
        self.watching = Watching(run, admitting, self.fencing)
        self.letting_in = LettingIn(run, admitting, Rollback(run, admitting))
        self.beacons = Beacons(run, admitting, self.letting_in, self.fencing, self.departures)
        self.islands = Islands(run)
        draining = Draining(run, admitting, self.fencing)
        self.arranging = Arranging(run, draining, self.fencing)
        self.settling = Settling(run, self.letting_in)
        self.ending = EndOfRun(run, self.working, self.closing)
        self.hearing = Hearing(
            run,
            working=self.working,
            closing=self.closing,
            departures=self.departures,
            draining=draining,
            letting_in=self.letting_in,
            beacons=self.beacons,
            arranging=self.arranging,
        )

    # ------------------------------------------------------------------ the door

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Return what to do about an event. Answers that are no longer waited for give []."""
        if self.run.phase is RunPhase.CLOSING:
            return []
        if now > self.watching.looks_by:
            self.watching.notice_sleep(now)
        if isinstance(event, Received):
            instructions = self.hearing.heard(event.sender, event.message, now)
            if type(event.message) in OFTEN_NOTHING and not self._may_go_on(instructions):
                return [*self.run.agenda.arm()]
        else:
            instructions = self._handle(event, now)
        is_of_work = isinstance(event, Received) and type(event.message) in OF_WORK
        is_of_members = not is_of_work or bool(self.run.charges)
        if self.run.charges:
            instructions += self._judge(now)
        if not is_of_work:
            instructions += self.letting_in.let_in(now)
            if self.run.charges:
                instructions += self._judge(now)
        if is_of_members:
            instructions += self.islands.settle()
        return [*instructions, *self._go_on(now), *self.run.agenda.arm()]

    def _may_go_on(self, instructions: list[Instruction]) -> bool:
        """Return whether a word has made anything possible: most forwards and backwards go on at
        another peer."""
        return bool(instructions or self.run.charges or self.working.finishing.has_landed)

    def _judge(self, now: float) -> list[Instruction]:
        """Deal with what the event has shown of members, and with what that shows of others."""
        run, instructions = self.run, list[Instruction]()
        while run.charges and run.phase is not RunPhase.CLOSING:
            instructions += self.fencing.judge(run.charges.pop(0), now)
        return instructions

    def _go_on(self, now: float) -> list[Instruction]:
        """Do whatever the event has made possible."""
        run = self.run
        if run.phase is RunPhase.CLOSING:
            return []
        if run.phase is RunPhase.HAILING:
            return self.settling.settle_if_known(now)
        if run.phase is RunPhase.WAITING and self._is_served:
            self.working.begin(now)
        work = self.working.go_on(now)
        if run.phase is not RunPhase.TRAINING or not run.evaluation.is_complete:
            return work
        if not run.evaluation.is_reported:
            work += run.evaluation.report()
        if run.version != run.last_version and not self.closing.is_due:
            return work
        return [*work, *self._commit_or_end(now)]

    def _commit_or_end(self, now: float) -> list[Instruction]:
        """Commit or end if it is time to. This version is evaluated, where it is to be."""
        run = self.run
        if run.is_last_version:
            return self.ending.finish()
        return self.closing.begin(now) if run.commit is None else []

    @property
    def _is_served(self) -> bool:
        """Return whether every stage has the replicas that were asked for."""
        missing = zip(self.run.members.counts, self.run.needed, strict=True)
        return all(ready >= needed for ready, needed in missing)

    def _handle(self, event: Event, now: float) -> list[Instruction]:
        match event:
            case Started():
                return self._started(now)
            case PeersSeen(stage, peers):
                return self.beacons.seen(stage, peers, now)
            case SendFailed(to, Forward(work=work)):
                self.run.dispatch.refused(to, work, now + REWIRE_S)
            case SendFailed(to, Hail() | Admit()):
                return self.fencing.lost(to, "it cannot be reached", now)
            case PeerLost(peer, reason):
                self.arranging.lost(peer)
                return self.departures.gone(peer, reason, now)
            case Moved():
                self.run.own_link.moved(event, self.run.saving.under_way, now)
            case MoveRequested(peer, stage, seconds):
                return self.arranging.requested(peer, stage, seconds, now)
            case CheckpointSaved(version):
                self.run.saving.done(version)
            case CheckpointFailed(version, reason):
                return self.ending.checkpoint_failed(version, reason, now)
            case DeadlinePassed(name):
                return self._deadline_passed(name, now)
            case StopRequested(reason):
                return self.ending.stop_requested(reason)
            case Expelled(peer, reason):
                return self.fencing.expelled(peer, reason, now)
        return []

    def _started(self, now: float) -> list[Instruction]:
        return [
            StartDeadline("waiting", now + REPORT_S),
            self.watching.start(now),
            self.ending.start(now),
        ]

    # ------------------------------------------------------------------ deadlines

    def _deadline_passed(self, name: str, now: float) -> list[Instruction]:
        match name:
            case "waiting":
                return self._report_waiting(now)
            case "health":
                return self.watching.look_after_members(now) + self.departures.look(now)
            case "arrange":
                return self.arranging.look(now)
            case "settle":
                return self.settling.settle(now)
            case "save":
                self.run.saving.rests = False
            case "stall":
                return self.ending.watch(now)
            case "overdue":
                return [i for key in self.run.agenda.due(now) for i in self._overdue(*key, now)]
        return []

    def _overdue(self, what: str, microbatch: MicrobatchId | None, now: float) -> list[Instruction]:
        """Ask again for what is late."""
        match what:
            case "flight" if microbatch is not None:
                return self.working.lateness.flight_is_late(microbatch, now)
            case "receipt" if microbatch is not None:
                return self.working.lateness.receipt_is_late(microbatch, now)
        return self.closing.is_late(what, now)

    def _report_waiting(self, now: float) -> list[Instruction]:
        """Say for whom the run waits, before it begins or while a stage is served by nobody."""
        run = self.run
        ready, stages = run.members.counts, range(run.num_stages)
        needed = run.needed
        if run.phase not in (RunPhase.WAITING, RunPhase.HAILING):
            if all(ready):
                return []
            needed = (1,) * run.num_stages
        admitted = [m for m in run.members.in_state(Membership.ADMITTED) if not m.is_spare]
        loading = tuple(sum(m.stage == stage for m in admitted) for stage in stages)
        why = tuple(
            run.unable.why(stage, now) if ready[stage] < needed[stage] else "" for stage in stages
        )
        report = ReportWaiting(ready, needed, loading, why)
        return [report, StartDeadline("waiting", now + REPORT_S)]

    # ------------------------------------------------------------------ invariants

    def validate(self) -> None:
        """Check what always holds between events."""
        run = self.run
        run.books.validate()
        run.dispatch.validate()
        assert run.books.steps[0] == run.version
        assert len(run.books.steps) <= 1 + run.settings.staleness
        assert (run.phase is RunPhase.PREPARING) == (run.round is not None) or (
            run.phase is RunPhase.CLOSING
        )
        for ledger, index, stage in run.books.vacancies():
            assert ledger.grant_to_owners(index).path[stage] == NOBODY
