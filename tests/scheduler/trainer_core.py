"""A TrainerCore and the peers that answer it, in virtual time, for tests to lie to.

Honest peers do what they are told at once. A habit bends what a peer says; `say` puts any words
into its mouth.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from swarmrt.ids import NO_ISLAND, MicrobatchId, PeerId
from swarmrt.messages import (
    Accepted,
    Accumulated,
    Admit,
    Applied,
    Apply,
    Beacon,
    Claim,
    Evaluated,
    Forward,
    Granted,
    Hail,
    LeftOut,
    Message,
    Prepare,
    Prepared,
    Ready,
    Recover,
    Refused,
    Update,
    Updated,
)
from swarmrt.scheduler.events import CheckpointSaved, DeadlinePassed, Event, Received, Started
from swarmrt.scheduler.instructions import (
    Expel,
    Instruction,
    ReportExpelled,
    ReportRecovery,
    ReportStep,
    SaveCheckpoint,
    Send,
    StartDeadline,
    Stop,
)
from swarmrt.scheduler.settings import TrainerSettings
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.scheduler.trainer.membership.members import Membership
from swarmrt.wire.writing import encode

TOKENS = 100  # of a microbatch
LATENCY_S = 0.01
BEACON_S = 0.5
SERVICE_S = 0.01

Habit = Callable[[Message], Iterable[Message]]  # what a peer says instead


class Peer:
    """One that does what it is told."""

    def __init__(self, name: PeerId, stage: int, swarm: Swarm) -> None:
        self.name, self.stage, self._swarm = name, stage, swarm
        self.epoch, self.term, self.version = 1, 0, 0
        self.state = "joining"
        self.digest = "v0"
        self.prepared, self.applied = -1, -1
        self.record: set[MicrobatchId] = set()
        self.done = 0
        self.habit: Habit = lambda message: [message]
        self.loads, self.is_spare, self.island = True, False, NO_ISLAND
        self.gradient_bytes, self.moved_bytes, self.gradient_s = 1 << 30, 0, 0.0
        self.waits_for = PeerId("")
        self.left_out: list[LeftOut] = []

    def beacon(self) -> Beacon:
        state: Any = self.state
        ids = (self.epoch, self.term, self.stage, state, self.version, self.digest)
        work = (self.prepared, self.applied, 1.0, 0, self.done, SERVICE_S)
        link = (self.waits_for, self.gradient_bytes, self.moved_bytes, self.gradient_s)
        return Beacon(*ids, *work, *link, self.is_spare, self.island)

    def answers(self, message: Message) -> list[Message]:
        match message:
            case Hail(epoch):
                self.epoch, self.term, self.state = epoch, 0, "joining"
                return [self.beacon()]
            case Admit():
                return self._admitted(message)
            case LeftOut(epoch, term) if (epoch, term) == (self.epoch, self.term):
                self.left_out.append(message)
                self.state, self.term = "joining", 0
                return [self.beacon()]
            case Forward(work, epoch):
                answer: list[Message] = [Accepted(work, SERVICE_S, 0.0)]
                self._swarm.pass_on(self, message)
                return answer
            case Recover(_, microbatch, _, need) if self.stage in need:
                return self.accumulated(microbatch)
            case Prepare(epoch, step, number, roster):
                mine = {(mb.step, mb.index) for mb in self.record if mb.step == step}
                listed = dict(roster).get(self.name)
                if listed is None:
                    return []
                if mine != {(step, index) for index in listed}:
                    reason = f"accumulated {sorted(mine)}"
                    return [Refused(epoch, step, number, reason, PeerId(""))]
                self.prepared = number
                return [Prepared(epoch, step, number, f"g{step}", 1.0)]
            case Update(epoch, step, number):
                return [Updated(epoch, step, number, f"u{step}")]
            case Apply(epoch, step, number) if step == self.version:
                self.version, self.applied, self.prepared = step + 1, number, -1
                self.digest = f"v{self.version}"
                self.record = {mb for mb in self.record if mb.step > step}
                return [Applied(epoch, self.version, self.digest)]
            case Apply(epoch, step) if step == self.version - 1:
                return [Applied(epoch, self.version, self.digest)]
        return []

    def _admitted(self, message: Admit) -> list[Message]:
        if (message.epoch, message.term) <= (self.epoch, self.term):
            return []
        self.epoch, self.term = message.epoch, message.term
        self.record.clear()
        self.state = "loading"
        if not self.loads:
            return []
        self.version, self.digest, self.state = message.version, f"v{message.version}", "serving"
        return [Ready(self.epoch, self.term, self.version, self.digest)]

    def accumulated(self, microbatch: MicrobatchId) -> list[Message]:
        self.record.add(microbatch)
        self.done += 1
        return [Accumulated(self.epoch, self.term, microbatch, self.stage)]


class Swarm:
    """Feeds a core, checks it after every event, and keeps all that it tells."""

    def __init__(
        self, replicas: Sequence[int] = (2, 2, 2), *, latency_s: float = LATENCY_S, **settings: Any
    ) -> None:
        self.latency_s = latency_s
        values: dict[str, Any] = {
            "me": PeerId("trainer"),
            "seed": 0,
            "epoch": 1,
            "start_version": 0,
            "steps": 10**6,
            "microbatches": 6,
            "eval_every": 0,
            "eval_microbatches": 2,
            "checkpoint_every": 0,
            "needed": tuple(replicas),
            "start_digests": (),
            "record_ttl_s": 15.0,
            "resume": False,
            "microbatch_tokens": TOKENS,
        }
        self.settings = TrainerSettings(**(values | settings))
        self.core = TrainerCore(self.settings)
        self.now = 0.0
        self.told: list[tuple[float, Instruction]] = []
        self.stopped: Stop | None = None
        self.peers: dict[PeerId, Peer] = {}
        self.given: Counter[PeerId] = Counter()  # forwards of the trainer
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._turn = itertools.count()
        self._armed: dict[str, float] = {}
        self.feed(Started())
        for stage, number in enumerate(replicas):
            for place in range(number):
                self.join(f"s{stage}p{place}", stage)

    # ------------------------------------------------------------------ peers

    def join(
        self,
        name: str,
        stage: int,
        habit: Habit | None = None,
        loads: bool = True,
        is_spare: bool = False,
        island: int = NO_ISLAND,
    ) -> Peer:
        peer = self.peers[PeerId(name)] = Peer(PeerId(name), stage, self)
        peer.loads, peer.is_spare, peer.island = loads, is_spare, island
        if habit is not None:
            peer.habit = habit
        self.begin_beacons(peer)
        return peer

    def begin_beacons(self, peer: Peer) -> None:
        """At once, and until it is gone."""
        self._beat(peer)

    def _beat(self, peer: Peer) -> None:
        if self.peers.get(peer.name) is peer:
            self.speak(peer, [peer.beacon()])
            self.after(BEACON_S, lambda: self._beat(peer))

    def speak(self, peer: Peer, messages: Iterable[Message]) -> None:
        """What it would say honestly, bent by its habit."""
        for message in messages:
            for bent in peer.habit(message):
                self.after(self.latency_s, partial(self._say, peer.name, bent))

    def pass_on(self, first: Peer, forward: Forward) -> None:
        """Through a replica of each stage that the trainer thinks is ready, to the last one."""
        turn, route = next(self._turn), [first.name]
        for stage in range(1, self.core.run.num_stages):
            ready = self.core.run.members.ready(stage)
            known = [peer for peer in ready if peer in self.peers]
            if not known:
                return
            route.append(known[turn % len(known)])
        work, epoch, last = forward.work, forward.epoch, self.peers[route[-1]]
        if work.microbatch.held_out:
            self.speak(last, [Evaluated(work, epoch, 3.0 * TOKENS, TOKENS)])
        else:
            self.speak(last, [Claim(work, epoch, tuple(route), 2.0 * TOKENS, TOKENS)])

    # ------------------------------------------------------------------ time

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), act))

    def run(self, seconds: float) -> None:
        """For so long, or until the core stops."""
        until = self.now + seconds
        while self.stopped is None and self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = until

    def sleep(self, seconds: float) -> None:
        """The trainer's process stands still: whatever was due comes afterwards, at once."""
        late = self.now + seconds
        self._events = [(max(at, late), order, act) for at, order, act in self._events]
        heapq.heapify(self._events)
        self.now = late

    def run_to(self, version: int, limit_s: float = 600.0) -> None:
        until = self.now + limit_s
        while self.stopped is None and self.version < version:
            assert self._events and self._events[0][0] <= until, f"stuck at {self.version}"
            self.now, _, act = heapq.heappop(self._events)
            act()

    # ------------------------------------------------------------------ the core

    def _say(self, sender: PeerId, message: Message) -> None:
        self.say(sender, message)

    def say(self, sender: str, message: Message) -> list[Instruction]:
        return self.feed(Received(PeerId(sender), message))

    def feed(self, event: Event) -> list[Instruction]:
        instructions = self.core.handle(event, self.now)
        self.core.validate()
        for instruction in instructions:
            self.told.append((self.now, instruction))
            self._act(instruction)
        return instructions

    def _act(self, instruction: Instruction) -> None:
        match instruction:
            case Stop():
                self.stopped = instruction
            case StartDeadline(name, at):
                self._armed[name] = at
                self.after(max(0.0, at - self.now), lambda: self._passed(name, at))
            case SaveCheckpoint(version):
                self.after(self.latency_s, lambda: self._saved(version))
            case Send(to, message):
                encode(message)
                if isinstance(message, Forward):
                    self.given[to] += 1
                self.after(self.latency_s, lambda: self._arrived(to, message))

    def _saved(self, version: int) -> None:
        self.feed(CheckpointSaved(version))

    def _passed(self, name: str, at: float) -> None:
        if self._armed.get(name) == at:
            self.feed(DeadlinePassed(name))

    def _arrived(self, to: PeerId, message: Message) -> None:
        peer = self.peers.get(to)
        if peer is None:
            return
        if isinstance(message, Granted):
            for stage in reversed(message.need):
                owner = self.peers.get(message.path[stage])
                if owner is not None:
                    self.speak(owner, owner.accumulated(message.microbatch))
            return
        self.speak(peer, peer.answers(message))

    # ------------------------------------------------------------------ what came of it

    @property
    def version(self) -> int:
        return self.core.run.version

    def is_ready(self, name: str) -> bool:
        member = self.core.run.members.get(PeerId(name))
        return member is not None and member.state is Membership.READY

    def fenced(self) -> dict[str, int]:
        """How often each was."""
        counts: defaultdict[str, int] = defaultdict(int)
        for _, told in self.told:
            match told:
                case ReportRecovery(_, "fenced", _, reason):
                    counts[reason.split(": ")[0].split(", ")[1]] += 1
        return dict(counts)

    def reasons(self, name: str) -> list[str]:
        """Why it was fenced or expelled."""
        found = []
        for _, told in self.told:
            match told:
                case ReportRecovery(_, "fenced", _, reason) if f", {name}: " in reason:
                    found.append(reason)
                case ReportExpelled(peer, reason) if peer == name:
                    found.append(reason)
        return found

    def expelled(self) -> list[str]:
        return [told.peer for _, told in self.told if isinstance(told, Expel)]

    def steps(self) -> list[ReportStep]:
        return [told for _, told in self.told if isinstance(told, ReportStep)]

    @property
    def ended_with_error(self) -> str:
        return self.stopped.reason if self.stopped is not None and self.stopped.error else ""


def bends(kind: type[Message], **fields: Any) -> Habit:
    """Messages of that kind have these values."""

    def habit(message: Message) -> list[Message]:
        return [replace(message, **fields) if type(message) is kind else message]

    return habit


def silent_about(*kinds: type[Message]) -> Habit:
    return lambda message: [] if isinstance(message, kinds) else [message]


def member_of(swarm: Swarm, name: str) -> Any:
    return swarm.core.run.members.get(PeerId(name))
