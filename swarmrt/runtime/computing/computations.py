"""The computations of a peer's stage, and the tensors of microbatches that are kept for them.

Rules:
- Methods without an underscore are called on the event loop. Those that return work compute
  nothing: the work is for the torch thread, one at a time.
- Work is handed all that it needs, because the core may have it forgotten meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import torch

from swarmrt.config import RunConfig
from swarmrt.errors import EndedByMicrobatch, RunError
from swarmrt.ids import MicrobatchId
from swarmrt.messages import FailedIn
from swarmrt.model.optimizer import clip_scale
from swarmrt.model.stage import Forwarded, Stage
from swarmrt.runtime.computing.device_memory import give_back, held_bytes
from swarmrt.runtime.computing.fitting import Fitting
from swarmrt.runtime.computing.flaws import Flaws
from swarmrt.runtime.computing.local_work import local_work
from swarmrt.runtime.computing.transfers import Arriving, Computation, Transfers
from swarmrt.runtime.computing.trouble import is_out_of_memory, is_own_trouble, said_by
from swarmrt.runtime.peer.parts import part_range
from swarmrt.runtime.peer.serve_options import ServeOptions
from swarmrt.runtime.peer.updates import NextState
from swarmrt.runtime.state.copying import Copying
from swarmrt.runtime.state.snapshot import Snapshot, read_snapshot
from swarmrt.scheduler.events import (
    BackwardDone,
    ComputeFailed,
    Contributed,
    Event,
    ForwardDone,
    StateLoaded,
    Stepped,
    WeightGradientsDone,
)
from swarmrt.scheduler.instructions import (
    Contribute,
    RunBackward,
    RunWeightGradients,
    StepOptimizer,
)

log = logging.getLogger("swarmrt.peer")

Computed = Event | Callable[[], Event]  # the call waits for the copy to the host
Work = Callable[[], Computed]
Copied = Future[memoryview]  # a snapshot's file, once it is copied


class Computations:
    """A stage, its microbatches, and the work on them."""

    def __init__(
        self,
        config: RunConfig,
        stage: Stage,
        transfers: Transfers,
        copying: Copying,
        fitting: Fitting,
        options: ServeOptions,
    ) -> None:
        self.stage = stage
        self.targets_key = b""  # for the last stage
        self._config, self._options = config, options
        self._transfers, self._copying, self._fitting = transfers, copying, fitting
        self._inputs: dict[MicrobatchId, tuple[Arriving, torch.Tensor]] = {}  # and sealed targets
        self._forwarded: dict[MicrobatchId, Forwarded] = {}
        self._left: dict[MicrobatchId, Forwarded] = {}  # by backward, for later
        self._outputs: dict[MicrobatchId, tuple[torch.Tensor, torch.Tensor]] = {}  # and targets
        self._output_grads: dict[MicrobatchId, Arriving] = {}
        self._input_grads: dict[MicrobatchId, torch.Tensor] = {}
        self._contributions: dict[tuple[int, int], torch.Tensor] = {}  # by step and round
        self._kept: tuple[dict[MicrobatchId, Any], ...] = (
            self._inputs,
            self._forwarded,
            self._left,
            self._outputs,
            self._output_grads,
            self._input_grads,
        )

    # ------------------------------------------------------------------ what is kept

    def keep_input(self, mb: MicrobatchId, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Keep what a forward needs: activations or token ids, and sealed targets."""
        self._inputs[mb] = (self._transfers.to_device(inputs), targets)

    def keep_output_grad(self, mb: MicrobatchId, gradient: torch.Tensor) -> None:
        """Keep the gradient that has arrived for a backward."""
        self._output_grads[mb] = self._transfers.to_device(gradient)

    def output(self, mb: MicrobatchId) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the activations that a forward has made, on the host, and the sealed targets."""
        return self._outputs[mb]

    def input_grad(self, mb: MicrobatchId) -> torch.Tensor:
        """Return the gradient that a backward has made for the stage before, on the host."""
        return self._input_grads[mb]

    def forget(self, mb: MicrobatchId) -> None:
        """Forget everything of a microbatch."""
        for kept in self._kept:
            kept.pop(mb, None)

    def drop_frames(self, mb: MicrobatchId) -> None:
        """Forget what was kept of a microbatch for sending it again."""
        self._outputs.pop(mb, None)
        self._input_grads.pop(mb, None)

    def given(self, step: int, number: int, index: int, parts: int) -> torch.Tensor:
        """Return a view of one part of what this peer gives a round: what was fixed for it, or what
        is accumulated."""
        whole = self._contributions.get((step, number))
        if whole is None:
            whole = self.stage.gradients(step)
        return whole[part_range(len(whole), index, parts)]

    def drop_contribution(self, step: int, number: int) -> None:
        """Forget what was fixed for a round."""
        self._contributions.pop((step, number), None)

    # ------------------------------------------------------------------ work for the torch thread

    def forward(self, mb: MicrobatchId) -> Work:
        """Return the work of a forward on the input that is kept."""
        inputs, targets = self._inputs[mb]
        return self._named("forward", mb, partial(self._forward, mb, inputs, targets))

    def backward(self, what: RunBackward) -> Work:
        """Return the work of a backward, which takes what was kept for it."""
        mb = what.microbatch
        graph, gradient = self._forwarded.pop(mb), self._output_grads.pop(mb, None)
        self._inputs.pop(mb, None)
        return self._named("backward", mb, partial(self._backward, what, graph, gradient))

    def weight_gradients(self, what: RunWeightGradients) -> Work:
        """Return the work on the weight gradients that a backward has left for later."""
        mb = what.microbatch
        rest = partial(self._add_weight_gradients, what, self._left.pop(mb))
        return self._named("weights", mb, rest)

    def contribute(self, what: Contribute) -> Work:
        """Return the work of fixing what this peer gives a round."""
        return partial(self._contribute, what)

    def step(
        self, what: StepOptimizer, reduced: torch.Tensor
    ) -> Callable[[], tuple[Stepped, Copied | None]]:
        """Return the work of an update by the reduced gradient: the event, and the snapshot of the
        new state if one is asked for."""
        return partial(self._step, what, reduced)

    def adopt(
        self, what: StepOptimizer, state: NextState
    ) -> Callable[[], tuple[Stepped, Copied | None]]:
        """Return the work of taking over what the owners of parts have made of an update."""
        return partial(self._adopt, what, state)

    def clip_scale(self, norm: float) -> float:
        """Return what to multiply gradients by, when the whole model's has this norm."""
        return clip_scale(norm, self._config.optimizer.clip_norm)

    def snapshot(self) -> tuple[int, Copied]:
        """Begin to copy the state, and return its version and what comes of it."""
        return self.stage.version, self._copying.begin(self.stage.version, self.stage.live_state())

    def skip(self, what: StepOptimizer) -> Callable[[], tuple[Stepped, Copied | None]]:
        """Return the work of making a version without an update."""
        return partial(self._skip, what)

    def load(self, snapshot: Snapshot) -> Callable[[], Event]:
        """Return the work of taking over another peer's state."""
        return partial(self._load, snapshot)

    def build(self) -> Callable[[], Event]:
        """Return the work of building the stage anew, at version 0."""
        return self._build

    def leave_device(self) -> int:
        """Bring the state to the host's memory. Return how many bytes of the device are free by
        that."""
        self._copying.wait()
        device = self.stage.device
        if device.type == "cpu":
            return 0
        before_bytes = held_bytes(device)
        self.stage.move("cpu")
        give_back(device)
        return before_bytes - held_bytes(device)

    def take_device(self) -> None:
        """Bring the state to the device again. Raises RunError when that has no room for it: then
        it stays where it is."""
        self._copying.wait()
        device = self._options.device
        if self.stage.device == torch.device(device):
            return
        try:
            self.stage.move(device)
        except (RuntimeError, MemoryError) as error:
            give_back(torch.device(device))
            raise RunError(f"{device} does not take the state again: {said_by(error)}") from error

    def _named(self, what: FailedIn, mb: MicrobatchId, compute: Work) -> Work:
        """Return the work with its errors told. An error is an outcome, as what was sent may be at
        fault. Where it is not, the error ends the process, and is told with where it happened."""

        def work() -> Computed:
            try:
                return compute()
            except (Exception, SystemExit) as error:
                if is_own_trouble(error, self.stage.device):
                    raise self._fatal(what, mb, error) from error
                log.warning("%s of microbatch %s failed: %s", what, mb, said_by(error))
                return ComputeFailed(mb, what, said_by(error))

        return work

    def _fatal(self, what: FailedIn, mb: MicrobatchId, error: BaseException) -> RunError:
        """Return the error that ends this process. What was sent may have killed the device, but
        does not take its memory."""
        said = (
            f"{what} of microbatch {mb} at stage {self.stage.stage_index} failed: {said_by(error)}"
        )
        return RunError(said) if is_out_of_memory(error) else EndedByMicrobatch(said, mb)

    def _forward(self, mb: MicrobatchId, arriving: Arriving, targets: torch.Tensor) -> Computed:
        computation = Computation(self.stage.device)
        came = arriving.take()
        inputs = came
        if not self.stage.is_first:
            inputs = inputs.to(self.stage.dtype)
        opened = None
        if self.stage.is_last:
            opened = self._fitting.open_targets(self.targets_key, mb, targets)
        forwarded = self.stage.forward(mb, inputs, opened)
        computation.end()
        if not mb.held_out:
            self._forwarded[mb] = forwarded

        def done(frame_bytes: int = 0) -> Event:
            seconds, loss_sum = computation.seconds(), forwarded.loss_sum or 0.0
            return ForwardDone(mb, seconds, loss_sum, forwarded.tokens, frame_bytes)

        def keep(output: torch.Tensor) -> Event:
            self._fitting.learn(came, output)
            self._outputs[mb] = (output, targets)
            return done(output.nbytes + targets.nbytes)

        if forwarded.output is None:
            self._fitting.learn(came, None)
            return self._over(computation, done)
        return self._bring(forwarded.output, keep)

    def _backward(
        self, what: RunBackward, forwarded: Forwarded, arriving: Arriving | None
    ) -> Computed:
        computation = Computation(self.stage.device)
        mb = what.microbatch
        self.stage.size_own_steps(what.own_step)
        output_grad = None if arriving is None else arriving.take().to(self.stage.dtype)
        input_grad = self.stage.backward(
            forwarded, output_grad, accumulate=what.accumulate, later=what.later
        )
        is_whole = what.accumulate and not what.later  # else the sum is looked at once it is
        added = self.stage.gradients(mb.step) if is_whole else None
        flaws = Flaws(self._transfers, given=output_grad, made=input_grad, added=added)
        computation.end()
        if what.later:
            self._left[mb] = forwarded

        def done(frame_bytes: int = 0) -> Event:
            seconds, flaw = computation.seconds(), flaws.told()
            if flaw:
                return self._is_flawed("backward", mb, flaw)
            return BackwardDone(mb, seconds, frame_bytes)

        def keep(gradient: torch.Tensor) -> Event:
            self._input_grads[mb] = gradient
            return done(gradient.nbytes)

        return (
            self._over(computation, done) if input_grad is None else self._bring(input_grad, keep)
        )

    def _add_weight_gradients(self, what: RunWeightGradients, forwarded: Forwarded) -> Computed:
        computation, mb = Computation(self.stage.device), what.microbatch
        self.stage.size_own_steps(what.own_step)
        self.stage.add_weight_gradients(forwarded)
        flaws = Flaws(self._transfers, added=self.stage.gradients(mb.step))
        computation.end()

        def done() -> Event:
            seconds, flaw = computation.seconds(), flaws.told()
            if flaw:
                return self._is_flawed("weights", mb, flaw)
            return WeightGradientsDone(mb, seconds)

        return self._over(computation, done)

    def _is_flawed(self, what: FailedIn, mb: MicrobatchId, flaw: str) -> ComputeFailed:
        """Return the outcome of a computation that gave what counts for nothing."""
        log.warning("%s of microbatch %s: %s", what, mb, flaw)
        return ComputeFailed(mb, what, flaw, not_finite=True)

    def _over(self, computation: Computation, done: Callable[[], Event]) -> Computed:
        """Return what `done` gives once the computation is over.

        From CUDA that is waited for elsewhere: a receipt is for what has been added, and estimates
        are of what the device takes.
        """
        return done if computation.is_queued else done()

    def _bring(self, tensor: torch.Tensor, keep: Callable[[torch.Tensor], Event]) -> Computed:
        """Bring a tensor to the host, as it goes over the wire.

        From CUDA that is waited for elsewhere, so that the next computation begins meanwhile.
        """
        if self._config.precision.activations == "bfloat16":
            tensor = tensor.to(torch.bfloat16)
        leaving = self._transfers.to_host(tensor)
        if leaving.ready is None:
            return keep(leaving.host)
        return lambda: keep(leaving.wait())

    def _contribute(self, what: Contribute) -> Computed:
        computation = Computation(self.stage.device)
        self.stage.contribute(what.step)
        contribution = self.stage.contribution(what.step)
        computation.end()

        def done() -> Event:
            self._contributions[what.step, what.round] = contribution
            return Contributed(what.step, what.round)

        return self._over(computation, done)

    def _step(self, what: StepOptimizer, reduced: torch.Tensor) -> tuple[Stepped, Copied | None]:
        self._copying.wait()
        given = self._contributions.get((what.step, what.round))
        return self._made(what, self.stage.step(reduced, self.clip_scale(what.norm), given))

    def _adopt(self, what: StepOptimizer, state: NextState) -> tuple[Stepped, Copied | None]:
        self._copying.wait()
        return self._made(what, self.stage.adopt(state.pieces()))

    def _skip(self, what: StepOptimizer) -> tuple[Stepped, Copied | None]:
        self._copying.wait()
        return self._made(what, self.stage.skip())

    def _made(self, what: StepOptimizer, its_digest: str) -> tuple[Stepped, Copied | None]:
        version = what.step + 1
        copied = None
        if what.snapshot:
            copied = self._copying.begin(version, self.stage.live_state())
        return Stepped(version, its_digest, local_work(self.stage.local_report())), copied

    def _load(self, snapshot: Snapshot) -> Event:
        self._copying.wait()
        version = snapshot.version
        source = f"the snapshot of version {version}"
        self.stage.load_state(read_snapshot(snapshot.data, source), version)
        return StateLoaded(version, self.stage.digest())

    def _build(self) -> Event:
        self._copying.wait()
        options = self._options
        self.stage = options.new_stage(self._config, self.stage.stage_index, options.device)
        return StateLoaded(0, self.stage.digest())
