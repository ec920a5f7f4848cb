"""PeerCore: every decision of a peer. Events in, instructions out.

Rules:
- A peer takes work only in the epoch and term it was admitted in, for the steps that its version
  can compute and the next one.
- One computation at a time: backward before forward, and within each the oldest first. The next one
  is handed over before the running one ends.
- A forward has no side effects, so a refused, failed, lost or late push goes to another replica.
- A microbatch is accumulated at most once, by the record; what comes again is answered
  from it.
- Frames are retained as they were sent, up to a budget, until the step's update is applied.
- Who owns a microbatch and lacks a frame asks its neighbours for it, or releases it.
- The reduce starts only if the trainer's roster matches the record.
- Whatever is awaited is asked for again when it is overdue, and a beacon tells the trainer all
  that it may have missed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import (
    Accepted,
    Accumulated,
    Admit,
    Applied,
    Apply,
    Backward,
    Beacon,
    Busy,
    Claim,
    Drain,
    Evaluated,
    Finish,
    Forward,
    FrameKind,
    GetFrame,
    Granted,
    Hail,
    Leaving,
    Message,
    NoFrame,
    Part,
    PeerState,
    Prepare,
    Prepared,
    Ready,
    Recover,
    Refused,
    Released,
    Stale,
    Standing,
)
from swarmrt.scheduler.agenda import Agenda
from swarmrt.scheduler.estimate import Estimate
from swarmrt.scheduler.events import (
    BackwardDone,
    DeadlinePassed,
    Event,
    ForwardDone,
    GradientCombined,
    PartSummed,
    PeerLost,
    PeersSeen,
    Received,
    SendFailed,
    Started,
    StateLoaded,
    StateUnavailable,
    Stepped,
    StopRequested,
)
from swarmrt.scheduler.instructions import (
    Announce,
    ClearGradients,
    DropRound,
    Forget,
    InputGrad,
    Instruction,
    KeepGradient,
    KeepInput,
    LoadState,
    Output,
    RunBackward,
    RunForward,
    Send,
    StartDeadline,
    StepOptimizer,
    Stop,
)
from swarmrt.scheduler.reducing import Reducing
from swarmrt.scheduler.replicas import Replicas
from swarmrt.scheduler.retention import Retention
from swarmrt.scheduler.tasks import Phase, Task, Tasks

BEACON_S = 0.5  # between beacons: often enough for a live view, rare enough to cost nothing
REWIRE_S = 0.25  # before asking again when no replica of the next stage can take work
LEAVE_S = 30.0  # a commit that takes longer is not waited for
ANSWER_S = 5.0  # for the first answers, before it is known how long they take
MAX_QUEUED = 1024  # computations that wait, however little time they seem to take


@dataclass(frozen=True)
class PeerSettings:
    me: PeerId
    trainer: PeerId
    stage: int
    num_stages: int
    seed: int
    queue_s: float
    gradient_bytes: int  # of the stage
    retain_bytes: int  # frames kept for recovery
    record_ttl_s: float  # how long the directory may name a peer that is gone
    staleness: int = 0  # versions between the weights that a step runs on and those it updates


class PeerCore:
    def __init__(self, settings: PeerSettings) -> None:
        self.settings = settings
        self.epoch = -1
        self.term = 0
        self.version = 0
        self.digest = ""
        self.state: PeerState = "joining"
        self._leaving = False  # it wants to go
        self._draining = False  # and may
        self._asked_in = (-1, -1)  # epoch and term in which this peer has asked to be let go
        self._update = (-1, 0.0)  # round and norm of the one that made this version
        self._done = 0
        self._tasks = Tasks(settings.staleness)
        self._accumulating: set[MicrobatchId] = set()  # that a started backward will accumulate
        self._record: set[MicrobatchId] = set()  # accumulated, and not applied yet
        self._reducing = Reducing(settings.me, settings.gradient_bytes)
        self._retention = Retention(settings.retain_bytes)
        self._stepping = False
        self._admission: Admit | Hail | None = None  # that came while the optimizer was stepping
        self._stranded: list[MicrobatchId] = []  # outputs that no replica could take
        self._forward_time = Estimate()
        self._backward_time = Estimate()
        self._accept_time = Estimate()
        self._claim_time = Estimate()
        self._agenda: Agenda[MicrobatchId] = Agenda("overdue")
        self._next = Replicas(random.Random(settings.seed), settings.record_ttl_s)

    # ------------------------------------------------------------------ the door

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """What to do about it. Answers that are no longer waited for give []."""
        instructions = self._handle(event, now)
        return [*instructions, *self._leave_when_idle(), *self._agenda.arm()]

    def _handle(self, event: Event, now: float) -> list[Instruction]:
        match event:
            case Started(version, digest):
                self.version, self.digest = version, digest
                return [Announce("joining", version), StartDeadline("beacon", now + BEACON_S)]
            case Received(sender, message):
                return self._received(sender, message, now)
            case ForwardDone():
                return self._forward_done(event, now)
            case BackwardDone():
                return self._backward_done(event)
            case PartSummed():
                return self._reducing.part_summed(event) + self._reduce_on()
            case GradientCombined():
                return self._gradient_combined(event)
            case Stepped():
                return self._stepped(event)
            case StateLoaded(version, digest):
                return self._state_loaded(version, digest)
            case StateUnavailable(version):
                return self._state_unavailable(version)
            case SendFailed(to, message):
                return self._send_failed(to, message, now)
            case PeerLost(peer):
                return self._peer_lost(peer, now)
            case PeersSeen(stage, peers):
                return self._peers_seen(stage, peers, now)
            case DeadlinePassed("beacon"):
                return self._beat(now)
            case DeadlinePassed("rewire"):
                return self._rewire(now)
            case DeadlinePassed("overdue"):
                return [i for key in self._agenda.due(now) for i in self._overdue(key, now)]
            case StopRequested(reason):
                return self._stop_requested(reason, now)
            case DeadlinePassed("leave"):
                return [Stop("left without waiting for the commit", error=False)]
        return []

    def _received(self, sender: PeerId, message: Message, now: float) -> list[Instruction]:
        match message:
            case Forward():
                return self._forward(sender, message, now)
            case Backward():
                return self._backward(message)
            case Accepted():
                return self._accepted(sender, message, now)
            case Busy(work, service_s):
                self._next.refused(sender, service_s, now + max(REWIRE_S, service_s))
                return self._repush(sender, work.microbatch, now)
            case GetFrame():
                return self._get_frame(sender, message)
            case NoFrame():
                return self._no_frame(sender, message)
            case Part() if message.epoch == self.epoch:
                return self._reducing.part(sender, message, self.version) + self._reduce_on()
            case Stale(work):
                return self._stale(sender, work.microbatch)
        if sender != self.settings.trainer:
            return []
        return self._received_from_trainer(message, now)

    def _received_from_trainer(self, message: Message, now: float) -> list[Instruction]:
        match message:
            case Hail():
                return self._hail(message)
            case Admit():
                return self._admit(message)
            case Granted():
                return self._granted(message, now)
            case Recover():
                return self._recover(message)
            case Standing() if message.epoch == self.epoch:
                return self._standing(message, now)
            case Prepare():
                return self._prepare(message)
            case Apply():
                return self._apply(message)
            case Drain(epoch) if epoch == self.epoch and self._leaving:
                self._draining = True
                return [Announce("leaving", self.version)]
            case Finish(reason):
                return [Announce("leaving", self.version), Stop(reason, error=False)]
        return []

    # ------------------------------------------------------------------ joining

    def _hail(self, message: Hail) -> list[Instruction]:
        """A new incarnation: void the work of the earlier one, and say what is held."""
        if message.epoch < self.epoch:
            return []
        if self._stepping:
            self._admission = message
            return []
        void: list[Instruction] = []
        if message.epoch > self.epoch:
            void = self._void_work()
            self.epoch, self.term, self.state = message.epoch, 0, "joining"
        return [*void, self._beacon()]

    def _admit(self, message: Admit) -> list[Instruction]:
        if (message.epoch, message.term) < (self.epoch, self.term):
            return []
        if (message.epoch, message.term) == (self.epoch, self.term):
            return [self._ready()] if self._serving else []
        if self._stepping:
            self._admission = message
            return []
        void = [*self._void_work(), *self._reducing.clear()]
        self.epoch, self.term = message.epoch, message.term
        self._update = (message.applied, message.norm)
        is_held = bool(self.digest) and message.digest in ("", self.digest)
        if message.version == self.version and is_held:
            return void + self._serve()
        self.state, self.digest = "loading", ""  # until it is here
        self.version = message.version  # what it follows from here on
        return [*void, LoadState(message.version, message.donors)]

    def _state_loaded(self, version: int, digest: str) -> list[Instruction]:
        if self.state != "loading" or version != self.version:
            return []
        self.digest = digest
        return self._serve() + self._reduce_on()

    def _state_unavailable(self, version: int) -> list[Instruction]:
        """The trainer sees it by the next beacon, and names other donors."""
        if self.state != "loading" or version != self.version:
            return []
        self.state = "joining"
        return [*self._reducing.clear(), self._beacon()]

    def _serve(self) -> list[Instruction]:
        self.state = "serving"
        if self._draining:
            return [self._ready()]
        return [self._ready(), Announce("serving", self.version)]

    def _ready(self) -> Send:
        return self._to_trainer(Ready(self.epoch, self.term, self.version, self.digest))

    def _void_work(self) -> list[Instruction]:
        """All of this step but a gradient that is whole, and that others may apply."""
        instructions: list[Instruction] = [Forget(mb) for mb in self._tasks.clear()]
        if self._record or self._accumulating:
            instructions.append(ClearGradients())
        self._record.clear()
        self._retention.clear()
        self._stranded.clear()
        self._agenda.clear()
        return instructions + self._reducing.clear(but_prepared=self.version)

    def _trainer_lost(self) -> list[Instruction]:
        """Without its ledger nothing can be committed: wait until it hails or admits us."""
        if self._leaving:
            return [Stop("the trainer is gone", error=False)]
        if self.state == "joining" or self._stepping:
            return []
        self.state, self.term = "joining", 0
        return [*self._void_work(), Announce("joining", self.version)]

    # ------------------------------------------------------------------ leaving

    def _stop_requested(self, reason: str, now: float) -> list[Instruction]:
        """Once: drain, when the trainer lets it. Twice, or when not serving: leave."""
        if self._leaving or not self._serving:
            return [Announce("leaving", self.version), Stop(reason, error=False)]
        self._leaving = True
        wish = self._to_trainer(Leaving(self.epoch, self.term, False))
        return [wish, StartDeadline("leave", now + LEAVE_S)]

    def _leave_when_idle(self) -> list[Instruction]:
        """Ask the trainer to be let go, once nothing of the step is left here."""
        if not self._may_leave or self._asked_in == (self.epoch, self.term):
            return []
        self._asked_in = (self.epoch, self.term)
        return [self._to_trainer(Leaving(self.epoch, self.term, True))]

    @property
    def _may_leave(self) -> bool:
        busy = len(self._tasks) or self._record or self._stepping or self._tasks.started
        return self._draining and self._serving and not busy

    # ------------------------------------------------------------------ others

    def _peer_lost(self, peer: PeerId, now: float) -> list[Instruction]:
        if peer == self.settings.trainer:
            return self._trainer_lost()
        self._next.lost(peer, now)
        return self._go_on_without(peer, now)

    def _standing(self, message: Standing, now: float) -> list[Instruction]:
        if message.serving:
            if message.stage == self.settings.stage + 1:
                self._next.vouch(message.peer)
                return self._rewire(now)
            return []
        self._next.lost(message.peer, now)
        return self._go_on_without(message.peer, now)

    def _go_on_without(self, peer: PeerId, now: float) -> list[Instruction]:
        """Push again what it had been given; release what only it could have sent."""
        instructions: list[Instruction] = []
        for task in self._tasks:
            if peer in task.asked.values():
                instructions += self._release(task, f"{peer}, who has a frame of it, is gone")
            elif task.pushed_to == peer and task.backward is Phase.AWAITED and task.has_output:
                instructions += self._push(task, now)
        return instructions

    def _peers_seen(self, stage: int, peers: tuple[PeerId, ...], now: float) -> list[Instruction]:
        if stage != self.settings.stage + 1:
            return []
        self._next.seen(peers, now)
        return self._rewire(now)

    def _beat(self, now: float) -> list[Instruction]:
        again: list[Instruction] = [StartDeadline("beacon", now + BEACON_S), self._beacon()]
        if self._leaving and self._serving:
            again.append(self._to_trainer(Leaving(self.epoch, self.term, self._may_leave)))
        return again

    def _beacon(self) -> Send:
        queued = self._tasks.computable(self.version) if not self._stepping else 0
        state: PeerState = "leaving" if self._leaving and self._serving else self.state
        return self._to_trainer(
            Beacon(
                self.epoch,
                self.term,
                self.settings.stage,
                state,
                self.version,
                self.digest,
                self._reducing.prepared(self.version),
                *self._update,
                queued,
                self._done,
                self._service_s,
            )
        )

    def _send_failed(self, to: PeerId, message: Message, now: float) -> list[Instruction]:
        match message:
            case Forward(work):
                self._next.refused(to, 0.0, now + REWIRE_S)
                return self._repush(to, work.microbatch, now)
            case GetFrame(_, microbatch, kind):
                task = self._tasks.get(microbatch)
                if task is None or task.asked.get(kind) != to:
                    return []
                return self._release(task, f"{to}, who has a frame of it, cannot be reached")
            case Part(epoch, step, number) if epoch == self.epoch:
                round_ = self._reducing.round(step)
                if round_ is None or to not in round_.members:
                    return []  # void by now, or only a listener
                reason = f"{to} cannot be reached"
                return [self._to_trainer(Refused(epoch, step, number, reason, to))]
        return []

    # ------------------------------------------------------------------ forward

    def _forward(self, sender: PeerId, message: Forward, now: float) -> list[Instruction]:
        microbatch = message.work.microbatch
        task = self._tasks.get(microbatch)
        if message.epoch != self.epoch or not self._serving:
            is_old = message.epoch < self.epoch
            return [Send(sender, Stale(message.work) if is_old else self._load(Busy, message))]
        if microbatch.step < self.version:
            return [Send(sender, Stale(message.work))]
        if task is not None:
            return [Send(sender, self._load(Accepted, message)), *self._again(task, message, now)]
        if self._draining or microbatch.step > self._newest_step + 1 or self._is_full:
            return [Send(sender, self._load(Busy, message))]
        accepted = self._load(Accepted, message)
        task = Task(microbatch, message.work.attempt, message.route, onward=True)
        self._tasks.queue_forward(self._tasks.add(task))
        return [KeepInput(microbatch), Send(sender, accepted), *self._compute()]

    def _again(self, task: Task, message: Forward, now: float) -> list[Instruction]:
        """Another attempt of a microbatch that is here; or the frame that was asked for."""
        was_asked = task.asked.pop("output", None) is not None
        is_new = message.work.attempt > task.attempt or message.route != task.route
        if is_new:
            task.attempt, task.route = message.work.attempt, message.route
            task.onward = task.onward or not was_asked
        has_frames = self._is_last or task.has_output
        is_spent = task.backward is Phase.DONE and not (task.has_input_grad or self._is_first)
        if task.forward is Phase.AWAITED or (is_new and self._is_idle(task) and is_spent):
            return self._forward_from(task)
        if not is_new or task.forward is not Phase.DONE or not task.onward:
            return []
        if not has_frames:
            return self._forward_from(task) if self._is_idle(task) else []
        return self._claim(task, now) if self._is_last else self._push(task, now)

    def _is_idle(self, task: Task) -> bool:
        return Phase.QUEUED not in (task.forward, task.backward) and (
            Phase.RUNNING not in (task.forward, task.backward)
        )

    def _forward_from(self, task: Task) -> list[Instruction]:
        """Compute it from the input that has just come."""
        if task.backward is Phase.DONE:
            task.backward, task.granted = Phase.AWAITED, False  # this attempt's grant may differ
        self._tasks.queue_forward(task)
        return [KeepInput(task.microbatch), *self._compute()]

    def _forward_done(self, event: ForwardDone, now: float) -> list[Instruction]:
        task = self._finished(event.microbatch, self._forward_time, event.seconds)
        if task is None:
            return [*self._forget_void(event.microbatch), *self._compute()]
        task.forward = Phase.DONE
        task.loss_sum, task.tokens = event.loss_sum, event.tokens
        if event.microbatch.held_out and self._is_last:
            self._tasks.drop(task)
            evaluated = Evaluated(task.work, self.epoch, event.loss_sum, event.tokens)
            return [self._to_trainer(evaluated), Forget(event.microbatch), *self._compute()]
        task.has_graph = not event.microbatch.held_out
        task.has_output, task.output_bytes = not self._is_last, event.frame_bytes
        instructions = self._give_output(task)
        if task.onward:
            instructions += self._claim(task, now) if self._is_last else self._push(task, now)
        if task.has_gradient or (self._is_last and task.granted):
            self._tasks.queue_backward(task)
        kept = self._retention.keep_within(task)
        return [*instructions, *kept, *self._compute()]

    def _push(self, task: Task, now: float) -> list[Instruction]:
        """Hand the output to a replica of the next stage, or keep it until there is one."""
        task.accepted = False
        task.pushed_to = self._next.wiring.choose(now)
        if task.pushed_to is None:
            self._stranded.append(task.microbatch)
            is_first = len(self._stranded) == 1 and len(self._next.wiring)
            return [StartDeadline("rewire", now + REWIRE_S)] if is_first else []
        task.pushed_at = now
        patience_s = self._accept_time.patience_s(ANSWER_S, task.retries)
        self._agenda.set(task.microbatch, now + patience_s)
        return [self._send_output(task.pushed_to, task)]

    def _send_output(self, to: PeerId, task: Task) -> Send:
        message = Forward(task.work, self.epoch, (*task.route, self.settings.me))
        return Send(to, message, Output(task.microbatch))

    def _give_output(self, task: Task) -> list[Instruction]:
        """To the replica that has asked for it, for recovery."""
        wanted_by, task.output_wanted_by = task.output_wanted_by, None
        return [self._send_output(wanted_by, task)] if wanted_by is not None else []

    def _repush(self, to: PeerId, microbatch: MicrobatchId, now: float) -> list[Instruction]:
        """That replica did not take it: try another."""
        task = self._tasks.get(microbatch)
        if task is None or task.pushed_to != to or task.accepted:
            return []
        if task.forward is not Phase.DONE or task.backward is not Phase.AWAITED:
            return []
        return self._push(task, now) if task.has_output else []

    def _rewire(self, now: float) -> list[Instruction]:
        stranded, self._stranded = self._stranded, []
        tasks = [task for mb in stranded if (task := self._tasks.get(mb)) is not None]
        return [
            instruction
            for task in tasks
            if task.pushed_to is None and task.has_output and task.backward is Phase.AWAITED
            for instruction in self._push(task, now)
        ]

    def _accepted(self, sender: PeerId, message: Accepted, now: float) -> list[Instruction]:
        self._next.wiring.observe(sender, message.service_s)
        task = self._tasks.get(message.work.microbatch)
        if task is None or task.pushed_to != sender or task.accepted:
            return []
        task.accepted = True
        task.retries = 0
        self._agenda.cancel(task.microbatch)
        self._accept_time.add(now - task.pushed_at)
        if message.work.microbatch.held_out:
            self._drop(task)
            return [Forget(task.microbatch)]
        return self._retention.keep_within(task)

    def _stale(self, sender: PeerId, microbatch: MicrobatchId) -> list[Instruction]:
        """By the trainer: another route owns it. By a replica: its step is over there."""
        task = self._tasks.get(microbatch)
        if task is None or (sender != self.settings.trainer and task.pushed_to != sender):
            return []
        if task.need or task.granted or task.forward is not Phase.DONE:
            return []
        self._drop(task)
        return [Forget(microbatch)]

    def _claim(self, task: Task, now: float) -> list[Instruction]:
        task.claimed_at = now
        patience_s = self._claim_time.patience_s(ANSWER_S, task.retries)
        self._agenda.set(task.microbatch, now + patience_s)
        route = (*task.route, self.settings.me)
        claim = Claim(task.work, self.epoch, route, task.loss_sum, task.tokens)
        return [self._to_trainer(claim)]

    def _overdue(self, microbatch: MicrobatchId, now: float) -> list[Instruction]:
        """A push or a claim that was not answered."""
        task = self._tasks.get(microbatch)
        if task is None or task.forward is not Phase.DONE or not task.onward:
            return []
        task.retries += 1
        if self._is_last:
            return self._claim(task, now) if not task.granted else []
        late = task.pushed_to
        if late is None or task.accepted:
            return []
        patience_s = self._accept_time.patience_s(ANSWER_S)
        self._next.refused(late, 0.0, now + patience_s)
        return self._repush(late, microbatch, now)

    # ------------------------------------------------------------------ backward

    def _granted(self, message: Granted, now: float) -> list[Instruction]:
        task = self._tasks.get(message.microbatch)
        if task is None or message.epoch != self.epoch or not self._is_last:
            return []
        if not task.granted:
            self._agenda.cancel(task.microbatch)
            self._claim_time.add(now - task.claimed_at)
        task.granted, task.retries = True, 0
        task.path, task.need = message.path, message.need
        return self._run_or_answer(task)

    def _backward(self, message: Backward) -> list[Instruction]:
        task = self._tasks.get(message.microbatch)
        if task is None or message.epoch != self.epoch or self._is_last:
            return []
        task.path, task.need = message.path, message.need
        task.asked.pop("gradient", None)
        keep: list[Instruction] = []
        if task.backward is Phase.AWAITED and not task.has_gradient:
            task.has_gradient = True
            keep = [KeepGradient(message.microbatch)]
        return keep + self._run_or_answer(task)

    def _run_or_answer(self, task: Task) -> list[Instruction]:
        """Backward, if it has not run; else what it gave."""
        if task.backward is Phase.DONE:
            return self._receipts(task)
        may_run = task.has_graph and (task.has_gradient or (self._is_last and task.granted))
        if task.backward is not Phase.AWAITED or task.forward is not Phase.DONE or not may_run:
            return []
        if task.microbatch in self._record and not self._passes_on(task):
            return self._receipts(task)
        self._tasks.queue_backward(task)
        return self._compute()

    def _passes_on(self, task: Task) -> bool:
        """Whether a stage before this one needs the input gradient."""
        if self._is_first or not any(stage < self.settings.stage for stage in task.need):
            return False
        return bool(task.path[self.settings.stage - 1])  # else it is vacant: its next owner asks

    def _backward_done(self, event: BackwardDone) -> list[Instruction]:
        microbatch = event.microbatch
        task = self._finished(microbatch, self._backward_time, event.seconds)
        accumulated = microbatch in self._accumulating
        self._accumulating.discard(microbatch)
        if task is None:  # its term ended while it ran, and what it added is void
            clear: list[Instruction] = [ClearGradients()] if accumulated else []
            return [*clear, *self._forget_void(microbatch), *self._compute()]
        task.backward = Phase.DONE
        task.has_graph = task.has_gradient = False
        task.has_input_grad, task.input_grad_bytes = not self._is_first, event.frame_bytes
        void = []
        if accumulated:
            self._record.add(microbatch)
            void = self._reducing.void(microbatch.step)
        kept = self._retention.keep_within(task)
        return [*void, *self._receipts(task), *kept, *self._compute()]

    def _receipts(self, task: Task) -> list[Instruction]:
        """Give the previous stage its gradient, and tell the trainer what is accumulated."""
        instructions: list[Instruction] = []
        if self._passes_on(task) and task.has_input_grad:
            instructions = [self._send_input_grad(task)]
        if task.microbatch in self._record:
            instructions.append(self._receipt(task.microbatch))
        return instructions

    def _receipt(self, microbatch: MicrobatchId) -> Send:
        return self._to_trainer(Accumulated(self.epoch, self.term, microbatch, self.settings.stage))

    def _send_input_grad(self, task: Task) -> Send:
        upstream = task.path[self.settings.stage - 1]
        message = Backward(self.epoch, task.microbatch, task.path, task.need)
        return Send(upstream, message, InputGrad(task.microbatch))

    # ------------------------------------------------------------------ recovery

    def _recover(self, message: Recover) -> list[Instruction]:
        """This peer owns the microbatch: ask for what it lacks."""
        microbatch = message.microbatch
        is_open = self.version <= microbatch.step <= self._newest_step
        if message.epoch != self.epoch or not self._serving or not is_open:
            return []
        if microbatch in self._record:
            return [self._receipt(microbatch)]
        task = self._tasks.get(microbatch) or self._tasks.add(Task(microbatch))
        if task.backward in (Phase.QUEUED, Phase.RUNNING):
            return []
        task.path, task.need = message.path, message.need
        task.granted = task.granted or self._is_last
        instructions = self._reducing.void(microbatch.step)
        if task.forward is Phase.DONE and not task.has_graph:  # it only passed on what came
            task.forward = task.backward = Phase.AWAITED
        if task.forward is Phase.AWAITED:
            instructions += self._get_input(task)
        if not self._is_last and not task.has_gradient:
            instructions.append(self._ask(task, "gradient", task.path[self.settings.stage + 1]))
        return [*instructions, *self._run_or_answer(task), *self._compute()]

    def _get_input(self, task: Task) -> list[Instruction]:
        if self._is_first:  # it came with the message
            self._tasks.queue_forward(task)
            return [KeepInput(task.microbatch)]
        return [self._ask(task, "output", task.path[self.settings.stage - 1])]

    def _ask(self, task: Task, kind: FrameKind, owner: PeerId) -> Send:
        task.asked[kind] = owner
        return Send(owner, GetFrame(self.epoch, task.microbatch, kind))

    def _get_frame(self, sender: PeerId, message: GetFrame) -> list[Instruction]:
        """A new owner next to this stage recovers from what is retained here."""
        if message.epoch != self.epoch or not self._serving:
            return []
        task = self._tasks.get(message.microbatch)
        given = None
        if task is not None and message.kind == "output":
            given = self._output_for(sender, task)
        elif task is not None:
            given = self._gradient_for(sender, task)
        if given is None:
            return [Send(sender, NoFrame(self.epoch, message.microbatch, message.kind))]
        return given

    def _output_for(self, sender: PeerId, task: Task) -> list[Instruction] | None:
        """The output, now or as soon as it is there; None if it will not be."""
        if task.has_output:
            return [self._send_output(sender, task)]
        if task.forward is Phase.DONE or self._is_last:
            return None
        task.output_wanted_by = sender
        return []

    def _gradient_for(self, sender: PeerId, task: Task) -> list[Instruction] | None:
        if self._is_first or not task.path:
            return None
        stage = self.settings.stage - 1
        task.path = (*task.path[:stage], sender, *task.path[stage + 1 :])
        task.need = tuple(sorted({*task.need, stage}))
        if task.backward is not Phase.DONE:
            is_spent = task.microbatch in self._record and not task.has_gradient
            is_coming = task.backward is not Phase.AWAITED or not is_spent
            return self._run_or_answer(task) if is_coming else None
        return [self._send_input_grad(task)] if task.has_input_grad else None

    def _no_frame(self, sender: PeerId, message: NoFrame) -> list[Instruction]:
        task = self._tasks.get(message.microbatch)
        if task is None or task.asked.get(message.kind) != sender or message.epoch != self.epoch:
            return []
        return self._release(task, f"{sender} does not retain its {message.kind} any more")

    def _release(self, task: Task, reason: str) -> list[Instruction]:
        """Not accumulated, and it will not be: somebody else may own it."""
        if task.backward in (Phase.RUNNING, Phase.DONE):
            return []
        self._drop(task)
        released = Released(self.epoch, self.term, task.microbatch, reason)
        return [Forget(task.microbatch), self._to_trainer(released)]

    def _drop(self, task: Task) -> None:
        self._tasks.drop(task)
        self._retention.forget(task.microbatch)
        self._agenda.cancel(task.microbatch)

    # ------------------------------------------------------------------ commit

    def _prepare(self, message: Prepare) -> list[Instruction]:
        if message.epoch != self.epoch or message.step < self.version:
            return []
        if self.settings.me in message.listeners:
            return self._reducing.begin(message) + self._reduce_on()
        round_ = self._reducing.round(message.step)
        if round_ is not None and round_.prepare == message:
            return self._prepared(message.step)
        refusal = self._disagreement(message)
        if refusal:
            key = (message.step, message.round)
            return [self._to_trainer(Refused(self.epoch, *key, refusal, PeerId("")))]
        return self._reducing.begin(message) + self._reduce_on()

    def _disagreement(self, message: Prepare) -> str:
        """Why the roster is not what this peer did; empty if it is."""
        roster = dict(message.roster)
        if self.settings.me not in roster:
            return "not on the roster"
        if not self._serving or message.step != self.version:
            return f"does not serve version {message.step}"
        listed = set(roster[self.settings.me])
        accumulated = {mb.index for mb in self._record if mb.step == message.step}
        if accumulated != listed:
            return f"accumulated {sorted(accumulated)}, the roster says {sorted(listed)}"
        return ""

    def _reduce_on(self) -> list[Instruction]:
        """Combine or apply what is ready for the version that is here."""
        if not self._serving or self._stepping:
            return []
        instructions = self._reducing.next(self.version)
        for step in instructions:
            if isinstance(step, StepOptimizer):
                self._stepping, self._update = True, (step.round, step.norm)
        return instructions

    def _gradient_combined(self, event: GradientCombined) -> list[Instruction]:
        round_ = self._reducing.combined(event)
        if round_ is None:
            return [DropRound(event.step, event.round)]
        return self._prepared(event.step) + self._reduce_on()

    def _prepared(self, step: int) -> list[Instruction]:
        round_ = self._reducing.round(step)
        if round_ is None or round_.combined is None or self.settings.me not in round_.members:
            return []
        return [self._to_trainer(Prepared(self.epoch, *round_.key, *round_.combined))]

    def _apply(self, message: Apply) -> list[Instruction]:
        if message.epoch != self.epoch:
            return []
        if message.step == self.version - 1 and self._serving:
            return [self._to_trainer(Applied(self.epoch, self.version, self.digest))]
        if message.step < self.version:
            return []
        self._reducing.apply(message)
        if self._serving:
            return self._reduce_on()
        return self._roll_forward(message)

    def _roll_forward(self, message: Apply) -> list[Instruction]:
        """A new incarnation has found that others applied what this peer holds prepared."""
        prepared = self._reducing.prepared(self.version)
        is_here = message.step == self.version and message.round == prepared
        if self.state != "joining" or self._stepping or not is_here:
            return []
        self._stepping, self._update = True, (message.round, message.norm)
        return [StepOptimizer(message.step, message.round, message.norm, message.snapshot)]

    def _stepped(self, event: Stepped) -> list[Instruction]:
        self._stepping = False
        self.version, self.digest = event.version, event.digest
        self._record = {mb for mb in self._record if mb.step >= self.version}
        drops = self._reducing.stepped(self.version)
        for task in self._tasks:
            if task.microbatch.step < self.version:
                self._drop(task)
                drops.append(Forget(task.microbatch))
        applied = self._to_trainer(Applied(self.epoch, event.version, event.digest))
        after: list[Instruction] = [] if self._serving else [self._beacon()]
        admission, self._admission = self._admission, None
        if isinstance(admission, Hail):
            after = self._hail(admission)
        elif isinstance(admission, Admit):
            after = self._admit(admission)
        return [applied, *drops, *after, *self._reduce_on(), *self._compute()]

    # ------------------------------------------------------------------ computing

    def _compute(self) -> list[Instruction]:
        """Start what may be started."""
        instructions: list[Instruction] = []
        while (started := self._start_next()) is not None:
            instructions.append(started)
        return instructions

    def _start_next(self) -> RunForward | RunBackward | None:
        if not self._tasks.may_start or not self._serving or self._stepping:
            return None
        task = self._tasks.next_backward(self.version)
        if task is not None:
            needed = self.settings.stage in task.need and task.microbatch not in self._record
            if needed:
                self._accumulating.add(task.microbatch)
            return RunBackward(task.microbatch, needed)
        task = self._tasks.next_forward(self.version)
        return RunForward(task.microbatch) if task is not None else None

    def _finished(
        self, microbatch: MicrobatchId, estimate: Estimate, seconds: float
    ) -> Task | None:
        """A computation is over; its task, unless that is void by now."""
        estimate.add(seconds)
        self._done += 1
        return self._tasks.finished(microbatch)

    def _forget_void(self, microbatch: MicrobatchId) -> list[Instruction]:
        """What a void computation has left, unless it is to be computed again."""
        return [Forget(microbatch)] if microbatch not in self._tasks else []

    # ------------------------------------------------------------------ small words

    @property
    def _serving(self) -> bool:
        return self.state == "serving"

    @property
    def _newest_step(self) -> int:
        """That this version can compute."""
        return self.version + self.settings.staleness

    @property
    def _is_first(self) -> bool:
        return self.settings.stage == 0

    @property
    def _is_last(self) -> bool:
        return self.settings.stage == self.settings.num_stages - 1

    @property
    def _service_s(self) -> float:
        return self._forward_time.mean_s + self._backward_time.mean_s

    @property
    def _backlog_s(self) -> float:
        forwards, backwards = self._tasks.queued()
        return forwards * self._forward_time.mean_s + backwards * self._backward_time.mean_s

    @property
    def _is_full(self) -> bool:
        too_many = sum(self._tasks.queued()) >= MAX_QUEUED
        return self._backlog_s > self.settings.queue_s or too_many

    def _load(self, kind: type[Accepted] | type[Busy], message: Forward) -> Accepted | Busy:
        return kind(message.work, self._service_s, self._backlog_s)

    def _to_trainer(self, message: Message) -> Send:
        return Send(self.settings.trainer, message)

    # ------------------------------------------------------------------ invariants

    def validate(self) -> None:
        """What always holds between events."""
        self._next.wiring.validate()
        self._tasks.validate()
        self._retention.validate(self._tasks)
        for task in self._tasks:
            step = task.microbatch.step
            assert self.version <= step <= self._newest_step + 1, (self.version, task)
            assert step <= self._newest_step or task.backward is Phase.AWAITED
        if not self._serving:
            assert not len(self._tasks) and not self._record
