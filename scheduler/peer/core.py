"""PeerCore: every decision of a peer. Events in, instructions out.

Rules:
- A peer takes work only in the epoch and term it was admitted in, for the steps that its version
  can compute and the next one.
- What it does with microbatches is decided in `computing`, `forwards`, `backwards` and `recovery`;
  here it joins, commits, and leaves.
- The reduce starts only if the trainer's roster matches the record.
- A beacon tells the trainer all that it may have missed.
"""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.messages import (
    Accepted,
    Admit,
    Applied,
    Apply,
    Backward,
    Beacon,
    Busy,
    Drain,
    Finish,
    Forward,
    GetFrame,
    Granted,
    Hail,
    Leaving,
    LeftOut,
    Message,
    NoFrame,
    Part,
    PeerState,
    Prepare,
    Prepared,
    Ready,
    Recover,
    Refused,
    Stale,
    Standing,
    Update,
    Updated,
)
from swarmrt.scheduler.events import (
    BackwardDone,
    ComputeFailed,
    DeadlinePassed,
    Event,
    ForwardDone,
    GradientCombined,
    Moved,
    PartSummed,
    PartUnfit,
    PartUpdated,
    PeerLost,
    Received,
    SendFailed,
    Started,
    StateLoaded,
    StateUnavailable,
    Stepped,
    StopRequested,
    UpdateJoined,
    WeightGradientsDone,
)
from swarmrt.scheduler.instructions import (
    Announce,
    DropRound,
    Instruction,
    LoadState,
    ReportLeftOut,
    Send,
    StartDeadline,
    StepOptimizer,
    Stop,
    StopLoading,
    WaitsFor,
)
from swarmrt.scheduler.peer.believing import Believing
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.sync import Reducing
from swarmrt.scheduler.peer.waiting import Waiting
from swarmrt.scheduler.peer.work.backwards import Backwards
from swarmrt.scheduler.peer.work.computing import Computing
from swarmrt.scheduler.peer.work.forwards import Forwards
from swarmrt.scheduler.peer.work.recovery import Recovery
from swarmrt.scheduler.peer.work.tasks import Phase
from swarmrt.scheduler.settings import PeerSettings
from swarmrt.scheduler.timing.link_rate import LinkRate

LOAD_AGAIN_S = 0.5  # before the third try in a row to load a state; twice as long each time
MOST_DOUBLINGS = 6  # about half a minute
BEACON_S = 0.5  # between beacons: often enough for a live view, rare enough to cost nothing


class PeerCore:
    def __init__(self, settings: PeerSettings) -> None:
        self.seat = Seat(settings)
        self._leaving = False  # it wants to go; it may when it is draining
        self._asked_in = (-1, -1)  # epoch and term in which this peer has asked to be let go
        self._made_by = (-1, 0.0)  # round and norm of the one that made this version
        self._admitted_with = ""  # digest of the version that it was admitted at, where it is known
        self._alone_since: float | None = None  # when the trainer was lost, until it is heard again
        self._admission: Admit | Hail | LeftOut | None = None  # that came while it was stepping
        self._waiting = Waiting()
        self._loads_in_vain = 0  # in a row
        self._load_rests_in: tuple[int, int] | None = None  # epoch and term
        store = self.seat.store
        self._link = LinkRate(store.gradient_bytes)
        self.computing = Computing(self.seat)
        sizes = (settings.gradient_bytes, settings.update_bytes)
        self.reducing = Reducing(settings.me, *sizes, store)
        self.forwards = Forwards(self.seat, self.computing)
        self.backwards = Backwards(self.seat, self.computing, self.forwards, self.reducing)
        self.recovery = Recovery(
            self.seat, self.computing, self.forwards, self.backwards, self.reducing
        )
        self.believing = Believing(self.seat, self.computing.tasks)

    # ------------------------------------------------------------------ the door

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Return what to do about an event. Answers that are no longer waited for give []."""
        instructions = self._handle(event, now)
        instructions += self._skip_when_idle()
        return [*instructions, *self._leave_when_idle(), *self.forwards.agenda.arm()]

    def _handle(self, event: Event, now: float) -> list[Instruction]:
        match event:
            case Started(version, digest, applied, norm):
                self.seat.version, self.seat.digest = version, digest
                self._made_by = (applied, norm)
                return [Announce("joining", version), *self._beat(now)]
            case Received(sender, message):
                return self._received(sender, message, now)
            case ForwardDone():
                return self.forwards.done(event, now)
            case BackwardDone():
                return self.backwards.done(event)
            case WeightGradientsDone():
                return self.backwards.weights_done(event)
            case ComputeFailed():
                return self._compute_failed(event, now)
            case PartUnfit():
                return self._part_unfit(event)
            case PartSummed():
                return [
                    *self._not_finite(event),
                    *self.reducing.part_summed(event),
                    *self._reduce_on(),
                ]
            case GradientCombined():
                return self._gradient_combined(event)
            case PartUpdated():
                return [*self.reducing.part_updated(event), *self._reduce_on()]
            case UpdateJoined():
                return self._update_joined(event)
            case Stepped():
                return self._stepped(event)
            case Moved():
                awaited = "state" if self.seat.state == "loading" else self.reducing.awaited()
                self._link.moved(event, awaited, now)
                return []
            case StateLoaded(version, digest):
                return self._state_loaded(version, digest, now)
            case StateUnavailable(version):
                return self._state_unavailable(version, now)
            case SendFailed(to, message):
                return self._send_failed(to, message, now)
            case PeerLost(peer):
                return self._peer_lost(peer, now)
            case DeadlinePassed("beacon"):
                return self._beat(now)
            case DeadlinePassed("load"):
                return self._load_again()
            case DeadlinePassed("rewire"):
                return self.forwards.rewire(now)
            case DeadlinePassed("overdue"):
                return self.forwards.overdue(now)
            case DeadlinePassed("grant"):
                return self.forwards.grant_is_late()
            case StopRequested(reason):
                return self._stop_requested(reason)
        return []

    def _received(self, sender: PeerId, message: Message, now: float) -> list[Instruction]:
        seat = self.seat
        if not self.believing.believes(sender, message):
            return []
        if sender == seat.settings.trainer:
            self._alone_since = None
        match message:
            case Forward():
                return self.forwards.came(sender, message, now)
            case Backward():
                return self.backwards.came(sender, message, now)
            case Accepted():
                return self.forwards.accepted(sender, message, now)
            case Busy():
                return self.forwards.refused(sender, message, now)
            case GetFrame():
                return self.recovery.give_frame(sender, message)
            case NoFrame():
                return self.recovery.no_frame(sender, message)
            case Part() if message.epoch == seat.epoch:
                return self.reducing.part(sender, message, seat.version) + self._reduce_on()
            case Stale(work):
                return self.forwards.stale(sender, work.microbatch)
        return self._received_from_trainer(message, now)

    def _received_from_trainer(self, message: Message, now: float) -> list[Instruction]:
        seat = self.seat
        match message:
            case Hail():
                return self._hail(message)
            case Admit():
                return self._admit(message)
            case Granted():
                return self.backwards.granted(message, now)
            case Recover():
                return self.recovery.recover(message)
            case Standing() if message.epoch == seat.epoch:
                return self._standing(message, now)
            case Prepare():
                return self._prepare(message)
            case Update():
                return self._update(message)
            case Apply():
                return self._apply(message)
            case Drain(epoch, back) if epoch == seat.epoch and self._leaving:
                return self._drain(not back)
            case LeftOut(epoch, term) if (epoch, term) == (seat.epoch, seat.term):
                return self._left_out(message)
            case Finish(reason):
                return [Announce("leaving", seat.version), Stop(reason, error=False)]
        return []

    # ------------------------------------------------------------------ joining

    def _hail(self, message: Hail) -> list[Instruction]:
        """A new incarnation: void the work of the earlier one, and say what is held."""
        seat = self.seat
        if message.epoch < seat.epoch:
            return []
        if seat.is_stepping:
            self._admission = message
            return []
        void: list[Instruction] = []
        if message.epoch > seat.epoch:
            void = self._void_work()
            self._forget_neighbours()
            seat.epoch, seat.term, seat.state = message.epoch, 0, "joining"
        return [*void, self._beacon()]

    def _admit(self, message: Admit) -> list[Instruction]:
        seat = self.seat
        if (message.epoch, message.term) < (seat.epoch, seat.term):
            return []
        if (message.epoch, message.term) == (seat.epoch, seat.term):
            return [self._ready()] if seat.is_serving else []
        if seat.is_stepping:
            self._admission = message
            return []
        void = [*self._void_work(), *self.reducing.clear()]
        self._forget_neighbours()
        seat.epoch, seat.term = message.epoch, message.term
        seat.key = bytes.fromhex(message.key)
        self._admitted_with = message.digest
        self._made_by = (message.applied, message.norm)
        is_held = bool(seat.digest) and message.digest in ("", seat.digest)
        if message.version == seat.version and is_held:
            return void + self._serve()
        seat.state, seat.digest = "loading", ""  # until it is here
        self._load_rests_in = None
        seat.version = message.version  # what it follows from here on
        return [*void, LoadState(message.version, message.donors, message.digest)]

    def _state_loaded(self, version: int, digest: str, now: float) -> list[Instruction]:
        """Serve with the state that is here. If the trainer was lost meanwhile, it is kept for the
        next admission."""
        seat = self.seat
        is_awaited = seat.state == "loading" or (seat.state == "joining" and not seat.digest)
        if not is_awaited or version != seat.version:
            return []
        if self._admitted_with not in ("", digest):
            return self._state_unavailable(version, now)
        seat.digest, self._loads_in_vain = digest, 0
        if seat.state == "joining":
            return [self._beacon()]
        return self._serve() + self._reduce_on()

    def _state_unavailable(self, version: int, now: float) -> list[Instruction]:
        """The trainer sees it by the next beacon, and names other donors. When that has not helped,
        it is let see it later and later."""
        seat = self.seat
        if seat.state != "loading" or version != seat.version or self._load_rests_in is not None:
            return []
        self._loads_in_vain += 1
        self._load_rests_in = (seat.epoch, seat.term)
        if self._loads_in_vain == 1:
            return [*self.reducing.clear(), *self._load_again()]
        rest_s = LOAD_AGAIN_S * 2 ** min(self._loads_in_vain - 2, MOST_DOUBLINGS)
        return [*self.reducing.clear(), StartDeadline("load", now + rest_s)]

    def _load_again(self) -> list[Instruction]:
        """Show the trainer that this peer needs to be admitted once more."""
        seat, rests_in = self.seat, self._load_rests_in
        self._load_rests_in = None
        if seat.state != "loading" or rests_in != (seat.epoch, seat.term):
            return []
        seat.state = "joining"
        return [self._beacon()]

    def _serve(self) -> list[Instruction]:
        seat = self.seat
        seat.state = "serving"
        if seat.is_draining:
            return [self._ready()]
        return [self._ready(), Announce("serving", seat.version)]

    @property
    def update(self) -> tuple[int, float]:
        """The round and the norm of the update that made this version; -1 and 0 if not known."""
        return self._made_by

    def _ready(self) -> Send:
        seat = self.seat
        return seat.to_trainer(Ready(seat.epoch, seat.term, seat.version, seat.digest))

    def _void_work(self) -> list[Instruction]:
        """All of this step but a gradient that is whole, and that others may apply."""
        self.forwards.clear()
        self.seat.skipping = -1
        void = self.computing.void()
        return void + self.reducing.clear(but_prepared=self.seat.version)

    def _trainer_lost(self, now: float) -> list[Instruction]:
        """Wait until the trainer hails or admits us: without its ledger nothing can be
        committed."""
        seat = self.seat
        if self._alone_since is None:
            self._alone_since = now
        if self._leaving:
            return [Stop("the trainer is gone", error=False)]
        if seat.state == "joining" or seat.is_stepping:
            return []
        return self._begin_again()

    def _left_out(self, message: LeftOut) -> list[Instruction]:
        """Void the work of this term, tell the owner why, and wait for another admission."""
        seat = self.seat
        if seat.is_stepping:
            self._admission = message
            return []
        link, figures = self._link, (message.takes_s, message.step_s, message.rest_s)
        report = ReportLeftOut(link.gradient_bytes, link.bytes_per_s, message.what, *figures)
        told: list[Instruction] = [report]
        if seat.state == "loading":
            told += [StopLoading(), *self.reducing.clear()]
        self._link.forget()  # by then it may be another
        return [*told, *self._begin_again(), self._beacon()]

    def _begin_again(self) -> list[Instruction]:
        """Void the work of this term, and wait to be admitted in another one."""
        seat = self.seat
        seat.state, seat.term = "joining", 0
        return [*self._void_work(), Announce("joining", seat.version)]

    # ------------------------------------------------------------------ what cannot be computed

    def _compute_failed(self, event: ComputeFailed, now: float) -> list[Instruction]:
        """Let others try, who may fare better. It ends nobody: what was sent may be at fault."""
        seat = self.seat
        task, void = self.computing.failed(event.microbatch)
        if task is None:
            return [*void, *self.computing.compute()]
        reason = f"{event.computation} failed: {event.reason}"
        if event.computation == "forward":
            if not seat.is_first:
                self.forwards.blame.failed(task.input_of, now)
        elif task.gradient_of is not None:
            until = self.forwards.blame.failed(task.gradient_of, now)
            self.forwards.next.refused(task.gradient_of, 0.0, until)
        told = self.recovery.could_not_be_computed(
            task, event.computation, reason, event.not_finite
        )
        if not self.computing.is_spoiled:
            return [*told, *self.computing.compute()]
        if seat.is_stepping:
            return told  # and the rest when that is over
        return [*told, *self._begin_again(), self._beacon()]

    # ------------------------------------------------------------------ leaving

    def _stop_requested(self, reason: str) -> list[Instruction]:
        """Drain, when the trainer lets it; asked twice, or when not serving, leave.

        However long it takes until another can take over, this peer serves: its owner may insist.
        """
        seat = self.seat
        if self._leaving or not seat.is_serving:
            return [Announce("leaving", seat.version), Stop(reason, error=False)]
        self._leaving = True
        return [seat.to_trainer(Leaving(seat.epoch, seat.term, False))]

    def _drain(self, drains: bool) -> list[Instruction]:
        """The trainer lets it drain, or takes that back: this peer is the last of its stage."""
        seat = self.seat
        if drains == seat.is_draining:
            return []
        seat.is_draining, self._asked_in = drains, (-1, -1)
        return [Announce("leaving" if drains else "serving", seat.version)]

    def _leave_when_idle(self) -> list[Instruction]:
        """Ask the trainer to be let go, once nothing of the step is left here."""
        seat = self.seat
        if not self._may_leave or self._asked_in == (seat.epoch, seat.term):
            return []
        self._asked_in = (seat.epoch, seat.term)
        return [seat.to_trainer(Leaving(seat.epoch, seat.term, True))]

    @property
    def _may_leave(self) -> bool:
        seat = self.seat
        may_go = seat.is_draining and seat.is_serving and not seat.is_stepping
        return may_go and self.computing.is_idle

    # ------------------------------------------------------------------ others

    def _peer_lost(self, peer: PeerId, now: float) -> list[Instruction]:
        if peer == self.seat.settings.trainer:
            return self._trainer_lost(now)
        self.forwards.next.lost(peer, now)
        return self.recovery.go_on_without(peer, now)

    def _standing(self, message: Standing, now: float) -> list[Instruction]:
        forwards = self.forwards
        if not message.serving:
            forwards.before.discard(message.peer)
            forwards.next.fenced(message.peer)
            return self.recovery.go_on_without(message.peer, now)
        if message.stage == self.seat.stage - 1:
            forwards.before.add(message.peer)
        if message.stage == self.seat.stage + 1:
            forwards.next.vouch(message.peer, now)
        return [*self.recovery.vouched(message.peer), *forwards.rewire(now)]

    def _forget_neighbours(self) -> None:
        """Forget what the trainer has said of them, which is of an earlier admission."""
        self.forwards.forget_neighbours()
        self.recovery.forget_early()

    def _beat(self, now: float) -> list[Instruction]:
        seat = self.seat
        alone_s = 0.0 if self._alone_since is None else now - self._alone_since
        if alone_s > seat.settings.trainer_gone_s:
            reason = f"the trainer has been gone for {alone_s:.0f} s"
            return [Announce("leaving", seat.version), Stop(reason, error=False)]
        again: list[Instruction] = [StartDeadline("beacon", now + BEACON_S), self._beacon()]
        again += self._waiting.look(self._awaited(), now)
        if self._leaving and seat.is_serving:
            again.append(seat.to_trainer(Leaving(seat.epoch, seat.term, self._may_leave)))
        return again

    def _awaited(self) -> WaitsFor | None:
        """Return what this peer waits for before it serves, if it does not."""
        seat = self.seat
        if self._alone_since is not None:
            return "trainer"
        if seat.state == "loading":
            return "state" if self._load_rests_in is None else "next try"
        if seat.state == "joining":
            return "hail" if seat.epoch < 0 else "admission"
        return None

    def _beacon(self) -> Send:
        seat = self.seat
        queued = 0 if seat.is_stepping else self.computing.tasks.computable(seat.version)
        state: PeerState = "leaving" if self._leaving and seat.is_serving else seat.state
        return seat.to_trainer(
            Beacon(
                seat.epoch,
                seat.term,
                seat.stage,
                state,
                seat.version,
                seat.digest,
                self.reducing.prepared(seat.version),
                *self._made_by,
                queued,
                self.computing.done,
                self.computing.service_s,
                self.reducing.waits_for(seat.version) if seat.is_serving else PeerId(""),
                self._link.gradient_bytes,
                self._link.moved_bytes,
                self._link.gradient_s,
            )
        )

    def _send_failed(self, to: PeerId, message: Message, now: float) -> list[Instruction]:
        match message:
            case Forward():
                return self.forwards.send_failed(to, message, now)
            case GetFrame():
                return self.recovery.send_failed(to, message)
            case Part(epoch, step, number) if epoch == self.seat.epoch:
                round_ = self.reducing.round(step)
                if round_ is None or to not in round_.members:
                    return []  # void by now, or only a listener
                reason = f"{to} cannot be reached"
                return [self.seat.to_trainer(Refused(epoch, step, number, reason, to))]
        return []

    # ------------------------------------------------------------------ commit

    def _prepare(self, message: Prepare) -> list[Instruction]:
        seat = self.seat
        if message.epoch != seat.epoch or message.step < seat.version:
            return []
        if seat.me in message.listeners:
            return self.reducing.begin(message) + self._reduce_on()
        round_ = self.reducing.round(message.step)
        if round_ is not None and round_.prepare == message:
            return self._prepared(message.step)
        refusal = self._disagreement(message)
        if refusal:
            key = (message.step, message.round)
            return [seat.to_trainer(Refused(seat.epoch, *key, refusal))]
        if message.skip:
            return self._skip(message)
        return self.reducing.begin(message) + self._reduce_on()

    def _skip(self, message: Prepare) -> list[Instruction]:
        """Leave the step alone: what waits of it is dropped, and what runs ends first."""
        seat = self.seat
        seat.skipping = message.step
        drops = [
            self.forwards.drop(task)
            for task in self.computing.tasks
            if seat.skips(task.microbatch) and not task.is_running
        ]
        return [*self.reducing.begin(message), *drops, *self.computing.compute()]

    def _skip_when_idle(self) -> list[Instruction]:
        """Say that the step may be skipped, once nothing of it runs."""
        seat = self.seat
        round_ = self.reducing.round(seat.version) if seat.skipping == seat.version else None
        if round_ is None or not round_.prepare.skip or round_.combined is not None:
            return []
        if any(task.is_running for task in self.computing.tasks if seat.skips(task.microbatch)):
            return []
        round_.combined = ("", 0.0)
        return [*self._prepared(seat.version), *self._reduce_on()]

    def _disagreement(self, message: Prepare) -> str:
        """Return why the roster is not what this peer did; empty if it is."""
        seat = self.seat
        roster = dict(message.roster)
        if seat.me not in roster:
            return "not on the roster"
        if not seat.is_serving or message.step != seat.version:
            return f"does not serve version {message.step}"
        if message.skip:
            return ""
        listed = set(roster[seat.me])
        accumulated = self.computing.accumulated(message.step)
        if accumulated != listed:
            return f"accumulated {sorted(accumulated)}, the roster says {sorted(listed)}"
        return ""

    def _reduce_on(self) -> list[Instruction]:
        """Combine or apply what is ready for the version that is here."""
        seat = self.seat
        if not seat.is_serving or seat.is_stepping:
            return []
        if self.reducing.is_spoilt(seat.version):
            return [*self.reducing.clear(), *self._begin_again(), self._beacon()]
        instructions = self.reducing.next(seat.version)
        for step in instructions:
            if isinstance(step, StepOptimizer):
                seat.is_stepping, self._made_by = True, (step.round, step.norm)
        return instructions

    def _part_unfit(self, event: PartUnfit) -> list[Instruction]:
        """The round cannot be completed with it; the trainer decides who goes."""
        round_ = self.reducing.round(event.step)
        if round_ is None or round_.prepare.round != event.round:
            return []
        reason = f"a part of {event.sender} {event.reason}"
        key = (event.step, event.round)
        return [self.seat.to_trainer(Refused(self.seat.epoch, *key, reason, unfit=event.sender))]

    def _gradient_combined(self, event: GradientCombined) -> list[Instruction]:
        round_ = self.reducing.combined(event)
        if round_ is None:
            return [DropRound(event.step, event.round)]
        return self._prepared(event.step) + self._reduce_on()

    def _not_finite(self, event: PartSummed) -> list[Instruction]:
        """Tell the trainer whose slice is not, for it to do without that one."""
        seat, culprit = self.seat, event.not_finite
        if not culprit:
            return []
        reason = f"the gradient of step {event.step + 1} by {culprit} is not finite"
        refused = Refused(seat.epoch, event.step, event.round, reason, not_finite=culprit)
        return [seat.to_trainer(refused)]

    def _prepared(self, step: int) -> list[Instruction]:
        seat = self.seat
        round_ = self.reducing.round(step)
        if round_ is None or round_.combined is None or seat.me not in round_.members:
            return []
        return [seat.to_trainer(Prepared(seat.epoch, *round_.key, *round_.combined))]

    def _update(self, message: Update) -> list[Instruction]:
        """Make the parts that this peer owns, or say again that all of them are here."""
        if message.epoch != self.seat.epoch or message.step != self.seat.version:
            return []
        return self._updated(message.step) or self.reducing.update(message)

    def _update_joined(self, event: UpdateJoined) -> list[Instruction]:
        if self.reducing.joined(event) is None:
            return [DropRound(event.step, event.round)]
        return self._updated(event.step) + self._reduce_on()

    def _updated(self, step: int) -> list[Instruction]:
        """Say that the next version's state is here, if it is."""
        seat = self.seat
        round_ = self.reducing.round(step)
        if round_ is None or round_.update is None or seat.me not in round_.members:
            return []
        digest = round_.update.digest
        return [] if digest is None else [seat.to_trainer(Updated(seat.epoch, *round_.key, digest))]

    def _apply(self, message: Apply) -> list[Instruction]:
        seat = self.seat
        if message.epoch != seat.epoch:
            return []
        if message.step == seat.version - 1 and seat.is_serving:
            return [seat.to_trainer(Applied(seat.epoch, seat.version, seat.digest))]
        if message.step < seat.version:
            return []
        self.reducing.apply(message)
        if seat.is_serving:
            return self._reduce_on()
        return self._roll_forward(message)

    def _roll_forward(self, message: Apply) -> list[Instruction]:
        """A new incarnation has found that others applied what this peer holds prepared."""
        seat = self.seat
        prepared = self.reducing.prepared(seat.version)
        is_here = message.step == seat.version and message.round == prepared
        if seat.state != "joining" or seat.is_stepping or not is_here:
            return []
        round_ = self.reducing.round(message.step)
        assert round_ is not None
        seat.is_stepping, self._made_by = True, (message.round, message.norm)
        return [round_.step(message.norm, snapshot=message.snapshot)]

    def _stepped(self, event: Stepped) -> list[Instruction]:
        seat = self.seat
        seat.is_stepping, seat.skipping = False, -1
        seat.version, seat.digest = event.version, event.digest
        drops = self.reducing.stepped(seat.version)
        drops += [self.forwards.drop(task) for task in self.computing.applied(seat.version)]
        applied = seat.to_trainer(Applied(seat.epoch, event.version, event.digest))
        after: list[Instruction] = [] if seat.is_serving else [self._beacon()]
        admission, self._admission = self._admission, None
        if isinstance(admission, Hail):
            after = self._hail(admission)
        elif isinstance(admission, Admit):
            after = self._admit(admission)
        elif isinstance(admission, LeftOut):
            after = self._left_out(admission)
        elif self.computing.is_spoiled and seat.is_serving:
            after = [*self._begin_again(), self._beacon()]
        return [applied, *drops, *after, *self._reduce_on(), *self.computing.compute()]

    # ------------------------------------------------------------------ invariants

    def validate(self) -> None:
        """Check what always holds between events."""
        seat = self.seat
        tasks = self.computing.tasks
        self.forwards.next.wiring.validate()
        self.forwards.retention.validate(tasks)
        self.reducing.validate()
        tasks.validate()
        version, newest, settings = seat.version, seat.newest_step, seat.settings
        for task in tasks:
            step, index, held_out = task.microbatch
            assert version <= step <= newest + 1, (version, task)
            assert step <= newest or task.backward is Phase.AWAITED
            number = settings.eval_microbatches if held_out else settings.microbatches
            assert 0 <= index < number, task
        for step, index, held_out in self.computing.record:
            assert version <= step <= newest, (step, index)
            assert 0 <= index < settings.microbatches and not held_out
        if not seat.is_serving:
            assert not len(tasks) and not self.computing.record
