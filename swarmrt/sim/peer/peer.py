"""A simulated peer: the production PeerCore, and what its instructions do in virtual time.

Gradients are sets of microbatches, and weights are the history of what was applied. So a lost or
doubled gradient is seen at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Accepted, Backward, Message
from swarmrt.scheduler.events import PauseRequested, ResumeRequested, Started
from swarmrt.scheduler.instructions import (
    Announce,
    ClearGradients,
    CombineParts,
    Contribute,
    DropFrames,
    DropPart,
    DropRound,
    Forget,
    FreeDevice,
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
    RenewEvery,
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
from swarmrt.scheduler.timing.times import BEACON_S
from swarmrt.sim.engine.clock import Clock
from swarmrt.sim.engine.links import Sizes
from swarmrt.sim.engine.network import Network
from swarmrt.sim.engine.process import Process
from swarmrt.sim.peer.computing import Computing
from swarmrt.sim.peer.jobs import Device, Jobs
from swarmrt.sim.peer.loading import Loading, SnapshotOf
from swarmrt.sim.peer.reducing import Reducing
from swarmrt.sim.peer.state import State
from swarmrt.sim.swarm.dishonest import HONEST
from swarmrt.sim.swarm.fetching import History
from swarmrt.sim.swarm.moving import tell_what_moves

FRAME_BYTES = 100
ON_DEVICE = (
    RunForward,
    RunBackward,
    RunWeightGradients,
    ClearGradients,
    Contribute,
    UpdatePart,
    StepOptimizer,
    LoadState,
)


class SimulatedPeer:
    """A seat, in a process of its own or in one that it shares."""

    def __init__(
        self,
        settings: PeerSettings,
        clock: Clock,
        network: Network,
        rng: random.Random,
        announce: Callable[[PeerId, int, Announce], None],
        snapshot_of: SnapshotOf,
        gone: Callable[[PeerId], None],
        service_s: float,
        clock_offset_s: float = 0.0,
        clock_rate: float = 1.0,
        sizes: Sizes | None = None,
        device: Device | None = None,
    ) -> None:
        self.settings = settings
        self.stopped: Stop | None = None
        self.habit = HONEST
        self.drained = False  # it was asked to leave
        self.renews_s = BEACON_S  # at the most between two renewals of its record
        self._has_left = False  # the device, in its newest pause
        self.left_out: list[ReportLeftOut] = []  # why the run has gone on without it
        self.waits: list[ReportWaitsFor] = []  # what its owner is told that it waits for
        self._clock, self._network, self._sizes = clock, network, sizes
        self._announce, self._gone = announce, gone
        self.process = process = Process(settings, clock, self._act, clock_offset_s, clock_rate)
        self.jobs = jobs = Jobs(process, clock, rng, service_s, device)
        self.state = state = State()
        frame_bytes = FRAME_BYTES if sizes is None else sizes.activation_bytes
        what = (state, frame_bytes)
        self.computing = computing = Computing(settings, process, jobs, *what)
        self.reducing = Reducing(process, jobs, state, computing)
        around = (process, clock, network, rng, jobs, state, computing, snapshot_of, sizes)
        self._loading = Loading(settings.stage, *around)

    @property
    def history(self) -> History:
        """Return what was applied, which is what its weights are."""
        return self.state.history

    def start(self) -> None:
        self.process.feed(Started(0, self.state.digest))
        if self._network.wires is not None:
            tell_what_moves(self.process, self._clock, self._network.wires)

    def pause(self, *, gently: bool) -> None:
        """Have its owner ask for the device."""
        self._has_left = False
        self.process.feed(PauseRequested(gently))

    def resume(self) -> None:
        """Have its owner lend the device again."""
        self.process.feed(ResumeRequested())

    @property
    def has_device(self) -> bool:
        """Return whether it may compute: its owner does not have the device."""
        assert isinstance(self.process.core, PeerCore)
        return not (self._has_left and self.process.core.seat.is_paused)

    def kept(self) -> int:
        """Return how many payloads are here: nothing may pile up."""
        return self.computing.kept() + self.reducing.kept()

    # ------------------------------------------------------------------ acting

    def _act(self, instruction: Instruction) -> None:
        computing, reducing = self.computing, self.reducing
        assert self.has_device or not isinstance(instruction, ON_DEVICE), instruction
        match instruction:
            case Send(to, message, payload):
                for said in self.habit.says(message):
                    self._send(to, said, payload)
                if self.habit.is_early and isinstance(message, Accepted):
                    self._give_gradient_of(message.work.microbatch, to)
            case _ if self.habit.omits(instruction):
                pass
            case KeepInput(mb):
                computing.keep_input(mb, self.process.arrived)
            case KeepGradient(mb):
                computing.keep_gradient(mb, self.process.arrived)
            case RunForward(mb):
                computing.forward(mb)
            case RunBackward():
                computing.backward(instruction)
            case RunWeightGradients():
                computing.weight_gradients(instruction)
            case Forget(mb):
                computing.forget(mb)
            case DropFrames(mb):
                computing.drop_frames(mb)
            case ClearGradients():
                computing.clear_gradients()
            case KeepPart():
                reducing.keep(instruction, self.process.arrived)
            case Contribute():
                computing.contribute(instruction)
            case SumPart():
                reducing.sum_part(instruction)
            case CombineParts(step, number, parts):
                reducing.combine(step, number, parts)
            case UpdatePart(step, number, index):
                reducing.update_part((step, number, index))
            case JoinUpdate(step, number, parts):
                reducing.join(step, number, parts)
            case DropPart():
                reducing.drop_part(instruction)
            case DropRound(step, number):
                reducing.drop_round(step, number)
            case StepOptimizer():
                reducing.step(instruction)
            case LoadState():
                self._loading.load(instruction)
            case StopLoading():
                self._loading.stop()
            case ReportLeftOut():
                self.left_out.append(instruction)
            case ReportWaitsFor():
                self.waits.append(instruction)
            case FreeDevice():
                self._has_left = True
            case RenewEvery(every_s):
                self.renews_s = every_s
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
            self.jobs.once_moving("reduce", send)
        else:
            send()

    def _tensors(self, payload: Payload | None) -> Any:
        match payload:
            case GradientPart(step, number, index, _, summed=True):
                return self.reducing.sum_of((step, number, index))
            case UpdatedPart(step, number, index):
                return self.reducing.updated((step, number, index))
            case GradientPart(step):
                return self.reducing.slice_of(step)
            case Output(mb):
                return self.computing.output(mb)
            case InputGrad(mb):
                return self.computing.input_grad(mb)
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
