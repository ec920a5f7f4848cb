"""PeerCore: every decision of a peer. Events in, instructions out.

Rules:
- A peer takes work only from the epoch it was admitted in, for its version or the next.
- One computation at a time: backward before forward, and within each the oldest first.
- A forward waits until its step equals the version. It has no side effects, so a refused or
  failed push goes to another replica at once.
- A backward runs once for a microbatch of a step; a repeated one is answered from the record.
- Nothing of a step is forgotten before its update is applied.
- The reduce starts only if the trainer's roster matches the record.

A work goes through these phases:

    QUEUED → COMPUTING → PUSHING → AWAITING_BACKWARD → BACKWARD_QUEUED → BACKWARD → DONE
                  │                      ↑ Accepted          ↑ Backward
                  └→ (last stage) AWAITING_GRANT ── Granted ─┘
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from enum import StrEnum

from swarmrt.ids import PeerId, Work
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
    Evaluated,
    Finish,
    Forward,
    Granted,
    Leaving,
    Message,
    Part,
    Prepare,
    Prepared,
    Ready,
    Refused,
    Stale,
)
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
    LoadState,
    Output,
    RunBackward,
    RunForward,
    Send,
    StartDeadline,
    StepOptimizer,
    Stop,
)
from swarmrt.scheduler.membership import Absent
from swarmrt.scheduler.rounds import Round
from swarmrt.scheduler.wiring import Wiring

BEACON_S = 0.5  # between beacons: often enough for a live view, rare enough to cost nothing
REWIRE_S = 0.25  # before asking again when no replica of the next stage can take work
LEAVE_S = 30.0  # a commit that takes longer is not waited for
EARLY_PARTS = 1024  # parts of a round that this peer has not been told of yet


class Phase(StrEnum):
    QUEUED = "queued"
    COMPUTING = "computing"
    PUSHING = "pushing"
    AWAITING_GRANT = "awaiting grant"
    AWAITING_BACKWARD = "awaiting backward"
    BACKWARD_QUEUED = "backward queued"
    BACKWARD = "backward"
    DONE = "done"


@dataclass(frozen=True)
class PeerSettings:
    me: PeerId
    trainer: PeerId
    stage: int
    num_stages: int
    seed: int
    queue_s: float
    gradient_bytes: int  # of the stage
    record_ttl_s: float  # how long the directory may name a peer that is gone


@dataclass(slots=True)
class Task:
    """What this peer knows of a work."""

    work: Work
    route: tuple[PeerId, ...]  # before this stage
    phase: Phase = Phase.QUEUED
    pushed_to: PeerId | None = None


class PeerCore:
    def __init__(self, settings: PeerSettings) -> None:
        self.settings = settings
        self.epoch = -1
        self.version = 0
        self.digest = ""
        self.serving = False
        self._leaving = False
        self._asked_in = -1  # the epoch in which this peer has asked to be let go
        self._loading: int | None = None  # version being loaded
        self._done = 0
        self._tasks: dict[Work, Task] = {}
        self._forwards: list[tuple[int, bool, int, int, Work]] = []  # heap, oldest first
        self._backwards: list[tuple[int, bool, int, int, Work]] = []
        self._running: Work | None = None
        self._stranded: list[Work] = []  # outputs that no replica could take
        self._accumulated: dict[int, Work] = {}  # this step's record: index → work
        self._round: Round | None = None
        self._early_parts: list[tuple[PeerId, Part]] = []
        self._stepping = False
        self._admission: Admit | None = None  # that came while the optimizer was stepping
        self._forward_time = Estimate()
        self._backward_time = Estimate()
        self._absent = Absent(settings.record_ttl_s)
        self._wiring = Wiring(random.Random(settings.seed))

    # ------------------------------------------------------------------ the door

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """What to do about it. Answers that are no longer waited for give []."""
        return self._handle(event, now) + self._leave_when_idle()

    def _handle(self, event: Event, now: float) -> list[Instruction]:
        match event:
            case Started():
                return self._started(event, now)
            case Received(sender, message):
                return self._received(sender, message, now)
            case ForwardDone():
                return self._forward_done(event, now)
            case BackwardDone():
                return self._backward_done(event)
            case PartSummed():
                return self._part_summed(event)
            case GradientCombined():
                return self._gradient_combined(event)
            case Stepped():
                return self._stepped(event, now)
            case StateLoaded(version, digest):
                return self._state_loaded(version, digest)
            case StateUnavailable(version, reason):
                if version != self._loading:
                    return []
                return [Stop(f"cannot get version {version} of the stage: {reason}", error=True)]
            case SendFailed(to, Forward(work=work)):
                return self._push_failed(to, work, now)
            case PeerLost(peer, _):
                return self._peer_lost(peer, now)
            case PeersSeen(stage, peers):
                return self._peers_seen(stage, peers, now)
            case DeadlinePassed("beacon"):
                return self._beacon(now)
            case DeadlinePassed("rewire"):
                return self._rewire(now)
            case StopRequested(reason):
                return self._stop_requested(reason, now)
            case DeadlinePassed("leave"):
                return [Stop("left without waiting for the commit", error=False)]
        return []

    def _received(self, sender: PeerId, message: Message, now: float) -> list[Instruction]:
        from_trainer = sender == self.settings.trainer
        match message:
            case Forward():
                return self._forward(sender, message, now)
            case Backward():
                return self._backward(message)
            case Accepted():
                return self._accepted(sender, message)
            case Busy():
                self._wiring.observe(sender, message.service_s)
                self._wiring.block(sender, now + max(REWIRE_S, message.service_s))
                return self._repush(sender, message.work, now)
            case Part():
                return self._part(sender, message)
            case Admit() if from_trainer:
                return self._admit(message)
            case Granted(work) if from_trainer:
                return self._granted(work)
            case Stale(work):
                return self._drop(work)
            case Prepare() if from_trainer:
                return self._prepare(message)
            case Apply() if from_trainer:
                return self._apply(message)
            case Finish(reason) if from_trainer:
                return [Announce("leaving", self.version), Stop(reason, error=False)]
        return []

    # ------------------------------------------------------------------ joining and leaving

    def _started(self, event: Started, now: float) -> list[Instruction]:
        self.version, self.digest = event.version, event.digest
        return [Announce("joining", self.version), StartDeadline("beacon", now + BEACON_S)]

    def _admit(self, message: Admit) -> list[Instruction]:
        if message.epoch < self.epoch:
            return []
        if message.epoch == self.epoch and self.serving and message.version == self.version:
            return [self._ready()]
        if self._stepping:
            self._admission = message
            return []
        instructions = self._void_everything()
        self.epoch, self.serving = message.epoch, False
        if self._holds(message):
            return instructions + self._serve()
        self._loading = message.version
        return [*instructions, LoadState(message.version, message.donors)]

    def _holds(self, message: Admit) -> bool:
        """Whether this peer has the very weights that it is admitted at."""
        return message.version == self.version and message.digest in ("", self.digest)

    def _state_loaded(self, version: int, digest: str) -> list[Instruction]:
        if version != self._loading:
            return []
        self._loading = None
        self.version, self.digest = version, digest
        return self._serve()

    def _serve(self) -> list[Instruction]:
        self._loading = None
        self.serving = True
        if self._leaving:
            return [self._ready()]
        return [self._ready(), Announce("serving", self.version)]

    def _ready(self) -> Send:
        return self._to_trainer(Ready(self.epoch, self.version, self.digest))

    def _void_everything(self) -> list[Instruction]:
        """An earlier epoch's work is void."""
        instructions: list[Instruction] = [Forget(work) for work in self._tasks]
        if self._accumulated or self._running is not None:
            instructions.append(ClearGradients())
        if self._round is not None:
            instructions.append(DropRound(*self._round.key))
        self._tasks.clear()
        self._forwards.clear()
        self._backwards.clear()
        self._stranded.clear()
        self._accumulated.clear()
        self._early_parts.clear()
        self._round = None
        return instructions

    def _stop_requested(self, reason: str, now: float) -> list[Instruction]:
        """Once: take nothing new, do what was accepted, leave. Twice, or when idle: leave."""
        announce = Announce("leaving", self.version)
        if self._leaving or not self.serving:
            return [announce, Stop(reason, error=False)]
        self._leaving = True
        return [announce, StartDeadline("leave", now + LEAVE_S)]

    def _leave_when_idle(self) -> list[Instruction]:
        """Ask the trainer to be let go, once nothing of the step is left here."""
        is_idle = not (self._tasks or self._accumulated or self._stepping or self._running)
        if not (self._leaving and self.serving and is_idle) or self._asked_in == self.epoch:
            return []
        self._asked_in = self.epoch
        return [self._to_trainer(Leaving(self.epoch))]

    def _trainer_lost(self) -> list[Instruction]:
        """Without its ledger nothing can be committed: wait for it to come back and admit us."""
        if self._leaving:
            return [Stop("the trainer is gone", error=False)]
        was_serving, self.serving = self.serving, False
        announce = [Announce("joining", self.version)] if was_serving else []
        return [*self._void_everything(), *announce]

    def _peer_lost(self, peer: PeerId, now: float) -> list[Instruction]:
        if peer == self.settings.trainer:
            return self._trainer_lost()
        self._absent.add(peer, now)
        self._wiring.remove(peer)
        orphans = [
            task.work
            for task in self._tasks.values()
            if task.phase is Phase.PUSHING and task.pushed_to == peer
        ]
        return [instruction for work in orphans for instruction in self._push(work, now)]

    def _peers_seen(self, stage: int, peers: tuple[PeerId, ...], now: float) -> list[Instruction]:
        if stage != self.settings.stage + 1:
            return []
        self._wiring.set_peers(self._absent.without(peers, now))
        return self._rewire(now)

    def _beacon(self, now: float) -> list[Instruction]:
        again = StartDeadline("beacon", now + BEACON_S)
        if not self.serving:
            return [again]
        queued = len(self._forwards) + len(self._backwards) + (self._running is not None)
        beacon = Beacon(self.settings.stage, self.version, queued, self._done, self._service_s)
        return [again, self._to_trainer(beacon)]

    # ------------------------------------------------------------------ forward

    def _forward(self, sender: PeerId, message: Forward, now: float) -> list[Instruction]:
        work = message.work
        if message.epoch < self.epoch:
            return [Forget(work), Send(sender, Stale(work))] if work not in self._tasks else []
        if work in self._tasks:
            return [Send(sender, self._load(Accepted, work))]
        step = work.microbatch.step
        if self.serving and step < self.version:
            return [Forget(work), Send(sender, Stale(work))]
        takes = self.serving and not self._leaving and message.epoch == self.epoch
        if not takes or step > self.version + 1 or self._backlog_s > self.settings.queue_s:
            return [Forget(work), Send(sender, self._load(Busy, work))]
        accepted = self._load(Accepted, work)
        self._tasks[work] = Task(work, message.route)
        heapq.heappush(self._forwards, _age(work))
        return [Send(sender, accepted), *self._compute()]

    def _forward_done(self, event: ForwardDone, now: float) -> list[Instruction]:
        self._finished(event.work, self._forward_time, event.seconds)
        task = self._tasks.get(event.work)
        if task is None or task.phase is not Phase.COMPUTING:
            return [Forget(event.work), *self._compute()]
        if not self._is_last:
            return self._push(event.work, now) + self._compute()
        if event.work.microbatch.held_out:
            del self._tasks[event.work]
            evaluated = Evaluated(event.work, event.loss_sum, event.tokens)
            return [self._to_trainer(evaluated), Forget(event.work), *self._compute()]
        task.phase = Phase.AWAITING_GRANT
        route = (*task.route, self.settings.me)
        claim = Claim(event.work, self.epoch, route, event.loss_sum, event.tokens)
        return [self._to_trainer(claim), *self._compute()]

    def _push(self, work: Work, now: float) -> list[Instruction]:
        """Hand the output to a replica of the next stage, or keep it until there is one."""
        task = self._tasks[work]
        task.phase = Phase.PUSHING
        task.pushed_to = self._wiring.choose(now)
        if task.pushed_to is None:
            self._stranded.append(work)
            return [StartDeadline("rewire", now + REWIRE_S)]
        message = Forward(work, self.epoch, (*task.route, self.settings.me))
        return [Send(task.pushed_to, message, Output(work))]

    def _repush(self, refused_by: PeerId, work: Work, now: float) -> list[Instruction]:
        task = self._tasks.get(work)
        if task is None or task.phase is not Phase.PUSHING or task.pushed_to != refused_by:
            return []
        return self._push(work, now)

    def _push_failed(self, to: PeerId, work: Work, now: float) -> list[Instruction]:
        self._wiring.block(to, now + REWIRE_S)
        return self._repush(to, work, now)

    def _rewire(self, now: float) -> list[Instruction]:
        stranded, self._stranded = self._stranded, []
        return [
            instruction
            for work in stranded
            if work in self._tasks
            for instruction in self._push(work, now)
        ]

    def _accepted(self, sender: PeerId, message: Accepted) -> list[Instruction]:
        self._wiring.observe(sender, message.service_s)
        task = self._tasks.get(message.work)
        if task is None or task.phase is not Phase.PUSHING or task.pushed_to != sender:
            return []
        if message.work.microbatch.held_out:
            return self._drop(message.work)
        task.phase = Phase.AWAITING_BACKWARD
        return []

    # ------------------------------------------------------------------ backward

    def _granted(self, work: Work) -> list[Instruction]:
        task = self._tasks.get(work)
        if task is None or task.phase is not Phase.AWAITING_GRANT:
            return []
        return self._queue_backward(task)

    def _backward(self, message: Backward) -> list[Instruction]:
        task = self._tasks.get(message.work)
        if task is None or message.epoch != self.epoch:
            return []
        if task.phase is Phase.DONE:
            return self._receipts(task)
        if task.phase in (Phase.PUSHING, Phase.AWAITING_BACKWARD):
            return self._queue_backward(task)
        return []

    def _queue_backward(self, task: Task) -> list[Instruction]:
        task.phase = Phase.BACKWARD_QUEUED
        heapq.heappush(self._backwards, _age(task.work))
        return self._compute()

    def _backward_done(self, event: BackwardDone) -> list[Instruction]:
        self._finished(event.work, self._backward_time, event.seconds)
        task = self._tasks.get(event.work)
        if task is None or task.phase is not Phase.BACKWARD:
            # Its epoch ended while it ran, and what it added is void.
            return [ClearGradients(), Forget(event.work), *self._compute()]
        task.phase = Phase.DONE
        self._accumulated[event.work.microbatch.index] = event.work
        return self._receipts(task) + self._compute()

    def _receipts(self, task: Task) -> list[Instruction]:
        """Tell the trainer, and give the previous stage its gradient."""
        receipt = self._to_trainer(Accumulated(task.work, self.settings.stage))
        if self.settings.stage == 0:
            return [receipt]
        upstream = task.route[self.settings.stage - 1]
        message = Backward(task.work, self.epoch, task.route)
        return [Send(upstream, message, InputGrad(task.work)), receipt]

    # ------------------------------------------------------------------ commit

    def _prepare(self, message: Prepare) -> list[Instruction]:
        if message.epoch != self.epoch or message.step != self.version or not self.serving:
            return []
        if self._round is not None and self._round.key == (message.step, message.round):
            return self._prepared(self._round)
        refusal = self._disagreement(message)
        if refusal:
            return [self._to_trainer(Refused(message.step, message.round, refusal))]
        void = [DropRound(*self._round.key)] if self._round is not None else []
        self._round = Round(self.settings.me, message, self.settings.gradient_bytes)
        early, self._early_parts = self._early_parts, []
        instructions: list[Instruction] = [*void, *self._round.start()]
        for sender, part in early:
            instructions += self._part(sender, part)
        return instructions

    def _disagreement(self, message: Prepare) -> str:
        """Why the roster is not what this peer did; empty if it is."""
        roster = dict(message.roster)
        if self.settings.me not in roster:
            return "not on the roster"
        recorded, listed = set(self._accumulated), set(roster[self.settings.me])
        if recorded != listed:
            return f"accumulated {sorted(recorded)}, the roster says {sorted(listed)}"
        return ""

    def _part(self, sender: PeerId, part: Part) -> list[Instruction]:
        if self._in_round(part.step, part.round):
            assert self._round is not None
            return self._round.part_arrived(sender, part)
        current = self._round.key if self._round is not None else (self.version, -1)
        if (part.step, part.round) > current and len(self._early_parts) < EARLY_PARTS:
            self._early_parts.append((sender, part))
        return []

    def _part_summed(self, event: PartSummed) -> list[Instruction]:
        if not self._in_round(event.step, event.round):
            return []
        assert self._round is not None
        return self._round.part_summed(event.index)

    def _gradient_combined(self, event: GradientCombined) -> list[Instruction]:
        if not self._in_round(event.step, event.round):
            return []
        assert self._round is not None
        self._round.combined = (event.digest, event.squared_norm)
        return self._prepared(self._round)

    def _prepared(self, round_: Round) -> list[Instruction]:
        if round_.combined is None:
            return []
        return [self._to_trainer(Prepared(*round_.key, *round_.combined))]

    def _apply(self, message: Apply) -> list[Instruction]:
        if message.epoch != self.epoch:
            return []
        if message.step == self.version - 1:
            return [self._to_trainer(Applied(self.version, self.digest))]
        if not self._in_round(message.step, message.round) or self._stepping:
            return []
        assert self._round is not None
        if self._round.combined is None:
            return []
        self._stepping = True
        return [StepOptimizer(message.step, message.norm, message.snapshot)]

    def _stepped(self, event: Stepped, now: float) -> list[Instruction]:
        self._stepping = False
        self.version, self.digest = event.version, event.digest
        self._accumulated.clear()
        self._round = None
        past = [work for work in self._tasks if work.microbatch.step < self.version]
        for work in past:
            del self._tasks[work]
        applied = self._to_trainer(Applied(event.version, event.digest))
        if self._admission is not None:
            admission, self._admission = self._admission, None
            return [applied, *(Forget(work) for work in past), *self._admit(admission)]
        return [applied, *self._compute(), *(Forget(work) for work in past)]

    def _in_round(self, step: int, number: int) -> bool:
        return self._round is not None and self._round.key == (step, number)

    # ------------------------------------------------------------------ computing

    def _compute(self) -> list[Instruction]:
        """Start the next computation if none runs."""
        if self._running is not None or not self.serving or self._stepping:
            return []
        task = self._pop(self._backwards, Phase.BACKWARD_QUEUED)
        if task is not None:
            task.phase, self._running = Phase.BACKWARD, task.work
            return [RunBackward(task.work)]
        task = self._pop(self._forwards, Phase.QUEUED)
        if task is not None:
            task.phase, self._running = Phase.COMPUTING, task.work
            return [RunForward(task.work)]
        return []

    def _pop(self, heap: list[tuple[int, bool, int, int, Work]], phase: Phase) -> Task | None:
        """The oldest task in this phase that this version can compute."""
        while heap:
            task = self._tasks.get(heap[0][-1])
            if task is not None and task.work.microbatch.step > self.version:
                return None
            heapq.heappop(heap)
            if task is not None and task.phase is phase:
                return task
        return None

    def _finished(self, work: Work, estimate: Estimate, seconds: float) -> None:
        if self._running == work:
            self._running = None
        estimate.add(seconds)
        self._done += 1

    def _drop(self, work: Work) -> list[Instruction]:
        """Forget a work that is not needed; one that is being computed is forgotten after."""
        task = self._tasks.get(work)
        if task is None or task.phase in (Phase.BACKWARD_QUEUED, Phase.BACKWARD, Phase.DONE):
            return []
        del self._tasks[work]
        return [Forget(work)] if self._running != work else []

    # ------------------------------------------------------------------ small words

    @property
    def _is_last(self) -> bool:
        return self.settings.stage == self.settings.num_stages - 1

    @property
    def _service_s(self) -> float:
        return self._forward_time.mean_s + self._backward_time.mean_s

    @property
    def _backlog_s(self) -> float:
        forwards_s = len(self._forwards) * self._forward_time.mean_s
        return forwards_s + len(self._backwards) * self._backward_time.mean_s

    def _load(self, kind: type[Accepted] | type[Busy], work: Work) -> Accepted | Busy:
        return kind(work, self._service_s, self._backlog_s)

    def _to_trainer(self, message: Message) -> Send:
        return Send(self.settings.trainer, message)

    # ------------------------------------------------------------------ invariants

    def validate(self) -> None:
        """What always holds between events."""
        self._wiring.validate()
        computing = [
            task.work
            for task in self._tasks.values()
            if task.phase in (Phase.COMPUTING, Phase.BACKWARD)
        ]
        assert len(computing) <= 1 and set(computing) <= {self._running}, computing
        for index, work in self._accumulated.items():
            assert work.microbatch.step == self.version and work.microbatch.index == index
            assert self._tasks[work].phase is Phase.DONE
        done = [task for task in self._tasks.values() if task.phase is Phase.DONE]
        assert len(done) == len(self._accumulated)
        for work, task in self._tasks.items():
            assert work == task.work and len(task.route) == self.settings.stage
            assert self.version <= work.microbatch.step <= self.version + 1


def _age(work: Work) -> tuple[int, bool, int, int, Work]:
    """Heap order: older steps first, then evaluations, which hold up a commit, then by index."""
    microbatch = work.microbatch
    return microbatch.step, not microbatch.held_out, microbatch.index, work.attempt, work
