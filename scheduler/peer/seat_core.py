"""SeatCore: every decision of one seat, which serves one stage.

It dispatches what comes to its parts, each of which knows only those before it. All of them share
the `Seat`, what it was admitted as and which version it holds.
"""

from __future__ import annotations

from swarmrt.ids import PeerId, SeatId
from swarmrt.messages import (
    Accepted,
    Admit,
    Apply,
    Backward,
    Busy,
    Drain,
    Finish,
    Forward,
    GetFrame,
    Granted,
    Hail,
    LeftOut,
    Message,
    NoFrame,
    Part,
    Prepare,
    Recover,
    SayEvery,
    Stale,
    Standing,
    Update,
)
from swarmrt.scheduler.events import (
    BackwardDone,
    ComputeFailed,
    Contributed,
    DeadlinePassed,
    Event,
    ForwardDone,
    GradientCombined,
    PartSummed,
    PartUnfit,
    PartUpdated,
    PauseRequested,
    ResumeRequested,
    SendFailed,
    StateLoaded,
    StateUnavailable,
    Stepped,
    StopRequested,
    UpdateJoined,
    WeightGradientsDone,
)
from swarmrt.scheduler.instructions import Instruction
from swarmrt.scheduler.peer.believing import Believing
from swarmrt.scheduler.peer.host import Host
from swarmrt.scheduler.peer.membership.beacons import Beacons
from swarmrt.scheduler.peer.membership.joining import Joining
from swarmrt.scheduler.peer.membership.leaving import Leaving
from swarmrt.scheduler.peer.membership.loading import Loading
from swarmrt.scheduler.peer.membership.pausing import Pausing
from swarmrt.scheduler.peer.membership.rhythm import Rhythm
from swarmrt.scheduler.peer.membership.terms import Terms
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.averaging.averaging import Averaging
from swarmrt.scheduler.peer.updating.averaging.reducing import ContributingRounds
from swarmrt.scheduler.peer.updating.averaging.versions import AveragedVersions
from swarmrt.scheduler.peer.updating.strategy import Updating, Versions
from swarmrt.scheduler.peer.updating.sync.sync import Sync
from swarmrt.scheduler.peer.updating.sync.versions import SyncVersions
from swarmrt.scheduler.peer.work.backwards import Backwards
from swarmrt.scheduler.peer.work.computing import Computing
from swarmrt.scheduler.peer.work.failures import Failures
from swarmrt.scheduler.peer.work.forwards import Forwards
from swarmrt.scheduler.peer.work.neighbours import Neighbours
from swarmrt.scheduler.peer.work.outputs import Outputs
from swarmrt.scheduler.peer.work.recovery import Recovery

NOT_WHILE_PAUSED = (Admit, LeftOut, Prepare, Part, Update, Apply)


class SeatCore:
    def __init__(self, host: Host, seat: Seat) -> None:
        self.seat = seat
        rounds = ContributingRounds(seat) if seat.settings.averages else None
        versions = SyncVersions(seat) if rounds is None else AveragedVersions(seat, rounds)
        self.versions: Versions = versions
        self.accumulators = versions.accumulators
        self.computing = work = Computing(seat, versions, host.queue)
        self.outputs = outputs = Outputs(seat, work)
        self.forwards = forwards = Forwards(seat, versions, work, outputs)
        self.backwards = Backwards(seat, versions, work, outputs, forwards)
        self.recovery = Recovery(seat, versions, work, outputs, forwards, self.backwards)
        self.neighbours = Neighbours(seat, outputs, forwards, self.recovery)
        self.leaving = Leaving(seat, work)
        self.rhythm = rhythm = Rhythm(seat.settings.me)
        self.beacons = beacons = Beacons(host, seat, versions, work, self.leaving, rhythm)
        self.terms = terms = Terms(seat, versions, work, outputs, beacons)
        self.failures = Failures(seat, versions, work, outputs, forwards, self.recovery, terms)
        parts = (work, outputs, terms)
        self.updating: Updating = (
            Sync(seat, versions, *parts)
            if rounds is None
            else Averaging(seat, versions, rounds, *parts)
        )
        self.loading = Loading(seat, versions, beacons, terms, self.updating)
        members = (self.leaving, beacons, terms, self.loading)
        self.joining = Joining(host, seat, versions, self.neighbours, *members)
        self.pausing = Pausing(seat, host.queue, *members)
        self.believing = Believing(seat, work.tasks)

    def happened(self, event: Event, now: float) -> list[Instruction]:
        """Return what to do about whatever is no message."""
        match event:
            case ForwardDone():
                return self.forwards.done(event, now)
            case BackwardDone():
                return self.backwards.done(event)
            case WeightGradientsDone():
                return self.backwards.weights_done(event)
            case ComputeFailed():
                return self.failures.failed(event, now)
            case PartUnfit() | PartSummed() | GradientCombined() | PartUpdated() | UpdateJoined():
                return self.updating.happened(event, now)
            case Contributed():
                return self.updating.happened(event, now)
            case Stepped():
                return self._stepped(event, now)
            case StateLoaded():
                return self.loading.loaded(event, now)
            case StateUnavailable():
                return self.loading.unavailable(event, now)
            case SendFailed(to, message):
                return self._send_failed(to, message, now)
            case DeadlinePassed("load"):
                return self.loading.again()
            case DeadlinePassed("rewire"):
                return self.outputs.rewire(now)
            case DeadlinePassed("overdue"):
                return self.outputs.overdue(now)
            case DeadlinePassed("grant"):
                return self.outputs.grant_is_late()
            case StopRequested(reason):
                return self.leaving.stop_requested(reason)
            case PauseRequested():
                return self.pausing.requested(event)
            case ResumeRequested():
                return self.pausing.resumed()
        return []

    def heard(self, sender: PeerId, message: Message, now: float) -> list[Instruction]:
        """Return what to do about a message that is believed."""
        if self.seat.is_paused and isinstance(message, NOT_WHILE_PAUSED):
            return []  # by the next beacon the trainer knows
        match message:
            case Forward():
                return self.forwards.came(sender, message, now)
            case Backward():
                return self.backwards.came(sender, message, now)
            case Accepted():
                return self.outputs.accepted(sender, message, now)
            case Busy():
                return self.outputs.refused(sender, message, now)
            case GetFrame():
                return self.recovery.give_frame(sender, message)
            case NoFrame():
                return self.recovery.no_frame(sender, message)
            case Stale(work):
                return self.forwards.stale(sender, work.microbatch)
            case Part() | Prepare() | Update() | Apply():
                return self.updating.heard(sender, message, now)
        return self._heard_from_trainer(message, now)

    def _heard_from_trainer(self, message: Message, now: float) -> list[Instruction]:
        seat = self.seat
        match message:
            case Hail():
                return self.joining.hailed(message)
            case Admit():
                return self.joining.admitted(message)
            case Granted():
                return self.backwards.granted(message, now)
            case Recover():
                return self.recovery.recover(message)
            case Standing() if message.epoch == seat.epoch:
                return self.neighbours.standing(message, now)
            case SayEvery(epoch, every_s) if epoch == seat.epoch:
                return self.rhythm.told(every_s, now)
            case Drain(epoch, back) if epoch == seat.epoch and self.leaving.may_be_told:
                return self.leaving.drain(not back)
            case LeftOut(epoch, term) if (epoch, term) == (seat.epoch, seat.term):
                return self.joining.left_out(message)
            case Finish(reason):
                return self.leaving.stop(reason)
        return []

    def settle(self) -> list[Instruction]:
        """Do what the last event has made possible; call it after each."""
        done = self.updating.settle()
        done += self.pausing.settle()
        if self.seat.is_draining:
            done += self.leaving.ask_when_idle()
        return done + self.outputs.agenda.arm()

    def _stepped(self, event: Stepped, now: float) -> list[Instruction]:
        applied = self.updating.happened(event, now)
        after = self.joining.stepped(is_spoiled=self.accumulators.is_spoiled)
        after += self.pausing.stepped()
        return [*applied, *after, *self.updating.go_on(), *self.computing.compute()]

    def _send_failed(self, to: SeatId, message: Message, now: float) -> list[Instruction]:
        match message:
            case Forward():
                return self.outputs.send_failed(to, message, now)
            case GetFrame():
                return self.recovery.send_failed(to, message)
            case Part():
                return self.updating.not_sent(to, message)
        return []

    def validate(self) -> None:
        """Check what always holds between events."""
        seat = self.seat
        self.outputs.next.wiring.validate()
        self.outputs.retention.validate(self.computing.tasks)
        self.computing.validate()
        self.versions.validate(self.computing.tasks)
        if not seat.is_serving:
            assert not len(self.computing.tasks) and not self.accumulators.record
        assert not seat.is_paused or seat.state == "joining", seat
