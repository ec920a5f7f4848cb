"""A simulated peer: the production PeerCore, with sets of microbatches for gradients.

The "gradient" of a microbatch is the microbatch itself, an accumulator is a count of its halves,
which backward adds together or one after the other, and the weights are the history of what was
applied. So a lost or doubled gradient is seen at once.
Who added up what is part of the weights' digest, because floating-point sums depend on it.
Frames are strings that name the microbatch, the stage and the epoch, so that a wrong one or one
of void work is seen too.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Accepted, Backward, FailedIn, Message
from swarmrt.scheduler.events import (
    BackwardDone,
    ComputeFailed,
    ForwardDone,
    GradientCombined,
    PartSummed,
    PartUpdated,
    Started,
    StateLoaded,
    StateUnavailable,
    Stepped,
    UpdateJoined,
    WeightGradientsDone,
)
from swarmrt.scheduler.instructions import (
    Announce,
    ClearGradients,
    CombineParts,
    DropFrames,
    DropPart,
    DropRound,
    Forget,
    GradientPart,
    InputGrad,
    Instruction,
    JoinUpdate,
    KeepGradient,
    KeepInput,
    KeepPart,
    LoadState,
    Output,
    Payload,
    ReportLeftOut,
    ReportWaitsFor,
    RunBackward,
    RunForward,
    RunWeightGradients,
    Send,
    StepOptimizer,
    Stop,
    StopLoading,
    SumPart,
    UpdatedPart,
    UpdatePart,
)
from swarmrt.scheduler.peer.core import PeerCore
from swarmrt.scheduler.settings import PeerSettings
from swarmrt.sim.engine.clock import Clock
from swarmrt.sim.engine.links import Sizes
from swarmrt.sim.engine.network import Network
from swarmrt.sim.engine.process import Process
from swarmrt.sim.swarm.dishonest import HONEST
from swarmrt.sim.swarm.fetching import Exchange, History, Update, digest_of
from swarmrt.sim.swarm.moving import tell_what_moves

TOKENS = 10  # of every microbatch
FRAME_BYTES = 100
SNAPSHOTS_KEPT = 2
Key = tuple[int, int, int]  # step, round, index
Thread = Literal["compute", "reduce", "update", "load"]


class SimulatedPeer:
    def __init__(
        self,
        settings: PeerSettings,
        clock: Clock,
        network: Network,
        rng: random.Random,
        announce: Callable[[PeerId, int, Announce], None],
        snapshot_of: Callable[[PeerId, int, int], History | None],
        gone: Callable[[PeerId], None],
        service_s: float,
        clock_offset_s: float = 0.0,
        clock_rate: float = 1.0,
        sizes: Sizes | None = None,
    ) -> None:
        self.settings = settings
        self.stopped: Stop | None = None
        self.habit = HONEST
        self.rounding = ""  # by its hardware: another one makes other weights of a gradient
        self.drained = False  # it was asked to leave
        self.fails_by_value = False  # what fails is not finite; else it raises an error
        self.fails: Callable[[str, MicrobatchId], bool] = lambda what, microbatch: False
        self.history: History = ()
        self.snapshots: dict[int, History] = {}
        self.left_out: list[ReportLeftOut] = []  # why the run has gone on without it
        self.waits: list[ReportWaitsFor] = []  # what its owner is told that it waits for
        self._clock, self._network, self._rng = clock, network, rng
        self._announce, self._snapshot_of = announce, snapshot_of
        self._gone = gone
        self.service_s = service_s
        self._inputs: dict[MicrobatchId, str] = {}
        self._graphs: set[MicrobatchId] = set()
        self._left: set[MicrobatchId] = set()  # half of their gradient
        self._outputs: set[MicrobatchId] = set()
        self._gradients: dict[MicrobatchId, str] = {}
        self._input_grads: set[MicrobatchId] = set()
        self._accumulated: dict[int, Counter[str]] = defaultdict(Counter)  # by step
        self._jobs: deque[tuple[float, Thread, Callable[[], None]]] = deque()  # one at a time
        self._hung_until: dict[Thread, float] = {}
        self._slices: dict[tuple[Key, PeerId], Counter[str]] = {}
        self._sums: dict[Key, Counter[str]] = {}
        self._reduced: dict[tuple[int, int], Counter[str]] = {}
        self._updated: dict[Key, History] = {}  # the next state, by each part's owner
        self._loads = 0
        self.process = Process(settings, clock, self._act, clock_offset_s, clock_rate)
        self._sizes, self._exchange = sizes, None
        self._frame_bytes = FRAME_BYTES if sizes is None else sizes.activation_bytes
        if sizes is None:
            network.connect(settings.me, self.process.feed)
        else:
            size = sizes.state_bytes
            self._exchange = Exchange(self.process, clock, network, size, self._give)

    def start(self) -> None:
        self.process.feed(Started(0, digest_of(())))
        if self._network.wires is not None:
            tell_what_moves(self.process, self._clock, self._network.wires)

    def hang(self, thread: Thread, seconds: float) -> None:
        """Make what it does there take so much longer, while the process beacons as before."""
        until = self._clock.now + seconds
        self._hung_until[thread] = max(until, self._hung_until.get(thread, 0.0))

    @property
    def is_hung(self) -> bool:
        return max(self._hung_until.values(), default=0.0) > self._clock.now

    # ------------------------------------------------------------------ acting

    def _act(self, instruction: Instruction) -> None:
        match instruction:
            case Send(to, message, payload):
                for said in self.habit.says(message):
                    self._send(to, said, payload)
                if self.habit.is_early and isinstance(message, Accepted):
                    self._give_gradient_of(message.work.microbatch, to)
            case _ if self.habit.omits(instruction):
                pass
            case KeepInput(mb):
                assert self.process.arrived == self._frame(mb, self.settings.stage - 1), mb
                self._inputs[mb] = self.process.arrived
            case KeepGradient(mb):
                assert self.process.arrived == self._frame(mb, self.settings.stage + 1), mb
                self._gradients[mb] = self.process.arrived
            case KeepPart(sender, step, number, index, summed, updated=updated):
                key = (step, number, index)
                if updated:
                    self._updated[key] = self.process.arrived
                elif summed:
                    self._sums[key] = self.process.arrived
                else:
                    self._slices[key, sender] = self.process.arrived
            case RunForward(mb):
                assert mb in self._inputs, f"{mb} has no input"
                self._later(1.0, lambda: self._forward(mb))
            case RunBackward(mb, accumulate, later):
                self._graphs.remove(mb)
                if self.settings.stage < self.settings.num_stages - 1:
                    self._gradients.pop(mb)
                self._inputs.pop(mb, None)
                share = 1.0 if later else 2.0
                self._later(share, lambda: self._backward(mb, accumulate, later))
            case RunWeightGradients(mb):
                self._left.remove(mb)
                self._later(1.0, lambda: self._add_what_was_left(mb))
            case Forget(mb):
                self._inputs.pop(mb, None)
                self._graphs.discard(mb)
                self._left.discard(mb)
                self._gradients.pop(mb, None)
                self._outputs.discard(mb)
                self._input_grads.discard(mb)
            case DropFrames(mb):
                self._outputs.discard(mb)
                self._input_grads.discard(mb)
            case ClearGradients():
                self._later(0.0, self._accumulated.clear)
            case SumPart():
                self._sum(instruction)
            case CombineParts(step, number, parts):
                self._combine(step, number, parts)
            case UpdatePart(step, number, index):
                self._once_moving("update", partial(self._update_part, (step, number, index)))
            case JoinUpdate(step, number, parts):
                self._join(step, number, parts)
            case DropPart(sender, step, number, index, summed):
                assert not summed, "of nobody who is honest"
                self._slices.pop(((step, number, index), sender), None)
            case DropRound(step, number):
                self._drop_round(step, number)
            case StepOptimizer(step, number, _, snapshot, adopt=adopt) if adopt:
                state = self._joined(step, number, adopt)
                self._check_adopted(step, state)
                self._later(0.2, lambda: self._adopt(step, state, snapshot), "update")
            case StepOptimizer(step, number, _, snapshot, skip):
                update = () if skip else self._rounded(self._reduced[step, number])
                self._later(0.2, lambda: self._step(step, update, snapshot), "update")
            case LoadState():
                self._load(instruction)
            case StopLoading():
                self._loads += 1
                if self._exchange is not None:
                    self._exchange.let_go()
            case ReportLeftOut():
                self.left_out.append(instruction)
            case ReportWaitsFor():
                self.waits.append(instruction)
            case Announce():
                self._announce(self.settings.me, self.settings.stage, instruction)
            case Stop():
                self.stopped = instruction
                self._gone(self.settings.me)
            case _:
                raise AssertionError(f"a peer cannot {instruction}")

    def _send(self, to: PeerId, message: Message, payload: Payload | None) -> None:
        """Send it. Slices of gradients are made by the thread of the reduce."""
        size = self._sizes.of(payload) if self._sizes is not None else 0
        tensors = self._tensors(payload)
        send = partial(self._network.send, self.settings.me, to, message, tensors, size)
        if isinstance(payload, GradientPart | UpdatedPart):
            self._once_moving("reduce", send)
        else:
            send()

    def _once_moving(self, thread: Thread, act: Callable[[], None]) -> None:
        """Do it at once, unless the thread hangs."""
        wait_s = self._hung_until.get(thread, 0.0) - self._clock.now
        if wait_s <= 0:
            act()
        else:
            self._clock.after(wait_s, lambda: act() if self.process.alive else None)

    def _later(self, share: float, act: Callable[[], None], thread: Thread = "compute") -> None:
        """Do it on the compute thread, one after the other. A pause of the process stops it too.

        `share` is of the time that a forward takes. The optimizer can hang by itself.
        """
        self._jobs.append((share, thread, act))
        if len(self._jobs) == 1:
            self._begin_job()

    def _begin_job(self) -> None:
        share, _, _ = self._jobs[0]
        self._clock.after(self.service_s * share * self._rng.uniform(0.8, 1.2), self._end_job)

    def _end_job(self) -> None:
        if not self.process.alive:
            return
        if self.process.paused:
            self._clock.after(0.05, self._end_job)
            return
        _, thread, act = self._jobs[0]
        hung_s = self._hung_until.get(thread, 0.0) - self._clock.now
        if hung_s > 0:
            self._clock.after(hung_s, self._end_job)
            return
        act()
        self._jobs.popleft()
        if self._jobs:
            self._begin_job()

    def _tensors(self, payload: Payload | None) -> Any:
        match payload:
            case GradientPart(step, number, index, _, summed=True):
                return self._sums[step, number, index]
            case UpdatedPart(step, number, index):
                return self._updated[step, number, index]
            case GradientPart(step):
                return Counter(self._accumulated[step])
            case Output(mb):
                assert mb in self._outputs, f"{mb} has no output"
                return self._frame(mb, self.settings.stage)
            case InputGrad(mb):
                assert mb in self._input_grads, f"{mb} has no input gradient"
                return self._frame(mb, self.settings.stage)
        return None

    def _give_gradient_of(self, mb: MicrobatchId, to: PeerId) -> None:
        """Send one of its own making, as if it had been granted."""
        assert isinstance(self.process.core, PeerCore)
        me, stages = self.settings.me, range(self.settings.num_stages)
        path = tuple(
            {self.settings.stage: me, self.settings.stage - 1: to}.get(s, me) for s in stages
        )
        message = Backward(self.process.core.seat.epoch, mb, path, tuple(stages))
        self._network.send(me, to, message, "made up")

    # ------------------------------------------------------------------ arithmetic

    def _frame(self, mb: MicrobatchId, stage: int) -> str:
        """Return what a stage sends, forward or backward. The trainer counts as stage -1."""
        assert isinstance(self.process.core, PeerCore)
        return f"{mb} of stage {stage} in epoch {self.process.core.seat.epoch}"

    def _forward(self, mb: MicrobatchId) -> None:
        self._check_weights(mb)
        if self._has_failed("forward", mb):
            return
        is_last = self.settings.stage == self.settings.num_stages - 1
        if not mb.held_out:
            self._graphs.add(mb)
        if not is_last:
            self._outputs.add(mb)
        loss_sum, tokens = (float(TOKENS), TOKENS) if is_last else (0.0, 0)
        self.process.feed(ForwardDone(mb, self.service_s, loss_sum, tokens, self._frame_bytes))

    def _backward(self, mb: MicrobatchId, accumulate: bool, later: bool) -> None:
        self._check_weights(mb)
        if self._has_failed("backward", mb, adds=accumulate):
            return
        if accumulate:
            self._add(mb, 1 if later else 2)
        if later:
            self._left.add(mb)
        self._input_grads.add(mb)
        seconds = self.service_s if later else 2 * self.service_s
        self.process.feed(BackwardDone(mb, seconds, self._frame_bytes))

    def _add_what_was_left(self, mb: MicrobatchId) -> None:
        if self._has_failed("weights", mb):
            return
        self._add(mb, 1)
        self.process.feed(WeightGradientsDone(mb, self.service_s))

    def _has_failed(self, what: FailedIn, mb: MicrobatchId, *, adds: bool = False) -> bool:
        """Return whether it raises an error. A part of a gradient may have been added before."""
        if not self.fails(what, mb):
            return False
        if adds:
            self._add(mb, 1)
        self.process.feed(ComputeFailed(mb, what, "simulated", self.fails_by_value))
        return True

    def _add(self, mb: MicrobatchId, halves: int) -> None:
        self._accumulated[mb.step][f"{mb} {self.settings.me}"] += halves

    def _check_weights(self, mb: MicrobatchId) -> None:
        """The version that it runs on is here: the newest, or with staleness the one before."""
        behind = len(self.history) - mb.runs_on(self.settings.staleness)
        assert 0 <= behind <= self.settings.staleness, f"{mb} at version {len(self.history)}"

    def _sum(self, what: SumPart) -> None:
        total: Counter[str] = Counter()
        key = (what.step, what.round, what.index)
        for peer in what.contributors:
            total += (
                self._accumulated[what.step]
                if peer == self.settings.me
                else self._slices.pop((key, peer))
            )
        self._sums[key] = total
        self._once_moving("reduce", lambda: self.process.feed(PartSummed(*key)))

    def _combine(self, step: int, number: int, parts: int) -> None:
        sums = [self._sums[step, number, index] for index in range(parts)]
        assert all(part == sums[0] for part in sums), sums
        self._reduced[step, number] = sums[0]
        update = _update(sums[0])
        combined = GradientCombined(step, number, digest_of((update,)), float(len(update)))
        self._once_moving("reduce", lambda: self.process.feed(combined))

    def _drop_round(self, step: int, number: int) -> None:
        self._reduced.pop((step, number), None)
        self._updated = {k: v for k, v in self._updated.items() if k[:2] != (step, number)}
        self._sums = {k: v for k, v in self._sums.items() if k[:2] != (step, number)}
        self._slices = {k: v for k, v in self._slices.items() if k[0][:2] != (step, number)}

    def _rounded(self, gradient: Counter[str]) -> Update:
        """Return what this peer's arithmetic makes of a gradient."""
        return tuple((name + self.rounding, halves) for name, halves in _update(gradient))

    def _update_part(self, key: Key) -> None:
        if key[:2] not in self._reduced:
            return  # it is void by now
        self._updated[key] = (*self.history, self._rounded(self._reduced[key[:2]]))
        self.process.feed(PartUpdated(*key))

    def _join(self, step: int, number: int, parts: int) -> None:
        its_digest = digest_of(self._joined(step, number, parts))
        joined = UpdateJoined(step, number, its_digest)
        self._once_moving("reduce", lambda: self.process.feed(joined))

    def _joined(self, step: int, number: int, parts: int) -> History:
        """Return the state of whose parts each was made by its owner."""
        states = [self._updated[step, number, index] for index in range(parts)]
        assert all(state[:-1] == states[0][:-1] for state in states), "owners had other states"
        return (*states[0][:-1], _joined_update([state[-1] for state in states]))

    def _check_adopted(self, step: int, state: History) -> None:
        """Check that a member's state led to it. A newcomer's may be another of the version."""
        assert isinstance(self.process.core, PeerCore)
        round_ = self.process.core.seat_core.reducing.round(step)
        if round_ is not None and self.settings.me in round_.members:
            assert state[:-1] == self.history, "the owners' state was another"

    def _adopt(self, step: int, state: History, snapshot: bool) -> None:
        self.history = state[:-1]
        self._step(step, state[-1], snapshot)

    def _step(self, step: int, update: Update, snapshot: bool) -> None:
        self.history = (*self.history, update)
        assert len(self.history) == step + 1
        self._accumulated.pop(step, None)
        if snapshot:
            self._keep_snapshot()
        self.process.feed(Stepped(step + 1, digest_of(self.history)))

    def _keep_snapshot(self) -> None:
        self.snapshots[len(self.history)] = self.history
        while len(self.snapshots) > SNAPSHOTS_KEPT:
            del self.snapshots[min(self.snapshots)]

    def _load(self, what: LoadState) -> None:
        """Version 0 is made, others are got: without sizes, in about as long."""
        self._loads += 1
        load, version, donors, stage = self._loads, what.version, what.donors, self.settings.stage
        if self._exchange is not None:
            self._exchange.let_go(but=(stage, version))
        if version > 0 and self._exchange is not None:
            done = partial(self._got, load, version)
            self._exchange.get(stage, version, what.digest, donors, done)
            return
        self._clock.after(
            self._rng.uniform(0.2, 2.0),
            lambda: self._got(load, version, self._find(version, donors)),
        )

    def _find(self, version: int, donors: tuple[PeerId, ...]) -> History | None:
        if version == 0:
            return ()
        states = (self._snapshot_of(donor, self.settings.stage, version) for donor in donors)
        return next((state for state in states if state is not None), None)

    def _give(self, stage: int, version: int) -> History | None:
        """Return what others ask for, if it is here."""
        return self.snapshots.get(version) if stage == self.settings.stage else None

    def _got(self, load: int, version: int, found: History | None) -> None:
        self._once_moving("load", lambda: self._take(load, version, found))

    def _take(self, load: int, version: int, found: History | None) -> None:
        if load != self._loads:
            return  # a newer one has replaced it
        if found is None:
            self.process.feed(StateUnavailable(version, "no donor has it"))
            return
        self._later(0.0, lambda: self._loaded(load, found))

    def _loaded(self, load: int, history: History) -> None:
        if load != self._loads:
            return
        self.history = history
        self._accumulated.clear()
        self._keep_snapshot()
        self.process.feed(StateLoaded(len(history), digest_of(history)))

    def kept(self) -> int:
        """Return how many payloads are here: nothing may pile up."""
        frames = len(self._inputs) + len(self._graphs) + len(self._outputs) + len(self._gradients)
        parts = len(self._slices) + len(self._sums) + len(self._reduced) + len(self._updated)
        return frames + len(self._left) + len(self._input_grads) + parts


def _update(gradient: Counter[str]) -> Update:
    return tuple(sorted(gradient.items()))


def _joined_update(updates: list[Update]) -> Update:
    """Join what owners made of one gradient: all of it, as each of them has rounded it."""
    joined = []
    for values in zip(*updates, strict=True):
        names = [name.split() for name, _ in values]
        assert len({(name[0], name[1]) for name in names}) == 1, values
        roundings = (" ".join(name[2:]) or "-" for name in names)
        joined.append((" ".join([*names[0][:2], *roundings]), values[0][1]))
    return tuple(joined)
