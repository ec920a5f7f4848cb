"""A simulated peer: the production PeerCore, with sets of microbatches for gradients.

The "gradient" of a microbatch is the microbatch itself, an accumulator is a count of them, and
the weights are the history of what was applied. So a lost or doubled gradient is seen at once.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from swarmrt.ids import PeerId, Work
from swarmrt.messages import Backward, Forward, Message, Part
from swarmrt.scheduler.events import (
    BackwardDone,
    ForwardDone,
    GradientCombined,
    PartSummed,
    Received,
    Started,
    StateLoaded,
    StateUnavailable,
    Stepped,
)
from swarmrt.scheduler.instructions import (
    Announce,
    ClearGradients,
    CombineParts,
    DropRound,
    Forget,
    GradientPart,
    InputGrad,
    Instruction,
    LoadState,
    Output,
    Payload,
    RunBackward,
    RunForward,
    Send,
    StepOptimizer,
    Stop,
    SumPart,
)
from swarmrt.scheduler.peer import PeerSettings
from swarmrt.sim.clock import Clock
from swarmrt.sim.network import Network
from swarmrt.sim.process import Process

Update = tuple[tuple[str, int], ...]  # what one step applied: (microbatch, times)
History = tuple[Update, ...]
TOKENS = 10  # of every microbatch


class SimulatedPeer:
    def __init__(
        self,
        settings: PeerSettings,
        clock: Clock,
        network: Network,
        rng: random.Random,
        announce: Callable[[PeerId, int, Announce], None],
        snapshot_of: Callable[[PeerId, int], History | None],
        gone: Callable[[PeerId], None],
        service_s: float,
    ) -> None:
        self.settings = settings
        self.stopped: Stop | None = None
        self.history: History = ()
        self.snapshots: dict[int, History] = {}
        self._clock, self._network, self._rng = clock, network, rng
        self._announce, self._snapshot_of = announce, snapshot_of
        self._gone = gone
        self._service_s = service_s
        self._inputs: dict[Work, Any] = {}
        self._graphs: set[Work] = set()
        self._accumulated: Counter[str] = Counter()
        self._slices: dict[tuple[int, int, int, PeerId], Counter[str]] = {}
        self._sums: dict[tuple[int, int, int], Counter[str]] = {}
        self._combined: Counter[str] = Counter()
        self._round = (0, 0)
        self.process = Process(settings, clock, self._act)
        network.connect(settings.me, self._receive)

    def start(self) -> None:
        self.process.feed(Started(0, digest_of(())))

    # ------------------------------------------------------------------ acting

    def _act(self, instruction: Instruction) -> None:
        match instruction:
            case Send(to, message, payload):
                self._network.send(self.settings.me, to, message, self._tensors(payload))
            case RunForward(work):
                assert work in self._inputs, f"{work} has no input"
                self._later(1.0, lambda: self._forward(work))
            case RunBackward(work):
                assert work in self._graphs, f"{work} has no graph"
                self._later(2.0, lambda: self._backward(work))
            case Forget(work):
                self._inputs.pop(work, None)
                self._graphs.discard(work)
            case ClearGradients():
                self._accumulated.clear()
            case SumPart():
                self._sum(instruction)
            case CombineParts(step, number, parts):
                self._combine(step, number, parts)
            case DropRound():
                pass
            case StepOptimizer(step, _, snapshot):
                self._later(0.2, lambda: self._step(step, snapshot))
            case LoadState(version, donors):
                self._clock.after(1.0, lambda: self._load(version, donors))
            case Announce():
                self._announce(self.settings.me, self.settings.stage, instruction)
            case Stop():
                self.stopped = instruction
                self._gone(self.settings.me)
            case _:
                raise AssertionError(f"a peer cannot {instruction}")

    def _later(self, share: float, act: Callable[[], None]) -> None:
        def act_if_alive() -> None:
            if self.process.alive:
                act()

        self._clock.after(self._service_s * share * self._rng.uniform(0.8, 1.2), act_if_alive)

    def _tensors(self, payload: Payload | None) -> Any:
        match payload:
            case GradientPart(index, _, summed=True):
                return self._sums[*self._round, index]
            case GradientPart():
                return Counter(self._accumulated)
            case Output(work) | InputGrad(work):
                return str(work.microbatch)
        return None

    def _receive(self, sender: PeerId, message: Message, payload: Any) -> None:
        match message:
            case Forward(work=work):
                self._inputs.setdefault(work, payload)
            case Backward(work=work):
                assert payload == str(work.microbatch)
            case Part(step, number, index, summed=True):
                self._sums[step, number, index] = payload
            case Part(step, number, index):
                self._slices[step, number, index, sender] = payload
        self.process.feed(Received(sender, message))

    # ------------------------------------------------------------------ arithmetic

    def _forward(self, work: Work) -> None:
        if not work.microbatch.held_out:
            self._graphs.add(work)
        is_last = self.settings.stage == self.settings.num_stages - 1
        loss_sum, tokens = (float(TOKENS), TOKENS) if is_last else (0.0, 0)
        self.process.feed(ForwardDone(work, self._service_s, loss_sum, tokens))

    def _backward(self, work: Work) -> None:
        self._graphs.discard(work)
        self._accumulated[str(work.microbatch)] += 1
        self.process.feed(BackwardDone(work, 2 * self._service_s))

    def _sum(self, what: SumPart) -> None:
        self._round = (what.step, what.round)
        total: Counter[str] = Counter()
        for peer in what.contributors:
            key = (what.step, what.round, what.index, peer)
            total += self._accumulated if peer == self.settings.me else self._slices.pop(key)
        self._sums[what.step, what.round, what.index] = total
        self.process.feed(PartSummed(what.step, what.round, what.index))

    def _combine(self, step: int, number: int, parts: int) -> None:
        sums = [self._sums.pop((step, number, index)) for index in range(parts)]
        assert all(part == sums[0] for part in sums), sums
        self._combined = sums[0]
        update = _update(self._combined)
        self.process.feed(GradientCombined(step, number, digest_of((update,)), float(len(update))))

    def _step(self, step: int, snapshot: bool) -> None:
        self.history = (*self.history, _update(self._combined))
        assert len(self.history) == step + 1
        self._accumulated.clear()
        if snapshot:
            self.snapshots[step + 1] = self.history
        self.process.feed(Stepped(step + 1, digest_of(self.history)))

    def _load(self, version: int, donors: tuple[PeerId, ...]) -> None:
        snapshots = map(lambda donor: self._snapshot_of(donor, version), donors)
        found = () if version == 0 else next((s for s in snapshots if s is not None), None)
        if found is None:
            self.process.feed(StateUnavailable(version, "no donor has it"))
            return
        self.history = found
        self._accumulated.clear()
        self.process.feed(StateLoaded(version, digest_of(found)))


def _update(gradient: Counter[str]) -> Update:
    return tuple(sorted(gradient.items()))


def digest_of(history: History) -> str:
    return hashlib.blake2b(repr(history).encode(), digest_size=8).hexdigest()
