"""A peer: the PeerCore with real tensors, links and a directory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from swarmrt.config import RunConfig
from swarmrt.errors import RunError, SwarmError
from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Backward, Forward, Message, Part, Recover, Standing
from swarmrt.model.optimizer import clip_scale
from swarmrt.model.stage import Forwarded, Stage
from swarmrt.runtime.directory import PeerRecord, RunRecord
from swarmrt.runtime.failpoints import Failpoints
from swarmrt.runtime.faults import LinkFaults
from swarmrt.runtime.network import LOOPBACK, Network, watch_stage
from swarmrt.runtime.parts import Mean, Parts, part_range
from swarmrt.runtime.place import Place
from swarmrt.runtime.shell import Shell, Tensors
from swarmrt.runtime.snapshot import (
    HEADER_BYTES,
    Snapshot,
    digest_of,
    read_snapshot,
    write_snapshot,
)
from swarmrt.runtime.stopping import StopSwitch
from swarmrt.runtime.transfers import Arriving, Transfers
from swarmrt.runtime.worker import Outcome, Worker
from swarmrt.scheduler.events import (
    BackwardDone,
    Event,
    ForwardDone,
    PeersSeen,
    Started,
    StateLoaded,
    StateUnavailable,
    Stepped,
    WeightGradientsDone,
)
from swarmrt.scheduler.instructions import (
    Announce,
    ClearGradients,
    CombineParts,
    DropFrames,
    DropRound,
    Forget,
    GradientPart,
    InputGrad,
    Instruction,
    KeepGradient,
    KeepInput,
    KeepPart,
    LoadState,
    Output,
    Payload,
    RunBackward,
    RunForward,
    RunWeightGradients,
    Send,
    StepOptimizer,
    SumPart,
)
from swarmrt.scheduler.seat import PeerSettings

Computed = Event | Callable[[], Event]  # the call waits for the copy to the host


@dataclass(frozen=True)
class ServeOptions:
    """What `swarmrt serve` was asked for."""

    run: str
    stage: int
    join: tuple[str, ...]
    place: Place = LOOPBACK
    identity: Path | None = None
    device: str = "cpu"
    threads: int | None = None
    wait: bool = False
    log_dir: Path | None = None
    failpoints: Failpoints = field(default_factory=Failpoints)
    faults: LinkFaults | None = None
    new_stage: Callable[[RunConfig, int, str], Stage] = Stage


class Threads(NamedTuple):
    """What a peer's event loop leaves to others."""

    torch: Worker
    reduce: Worker
    to_host: Worker  # waits for copies from CUDA


class Peer(Shell):
    """A shell with a stage.

    Forward, backward and update run on one thread, one at a time. The arithmetic of the reduce runs
    on another one beside them, and only reads accumulators. A backward that adds to one, or the
    clearing of one, voids the rounds of that step, so that what was read meanwhile counts for
    nothing. An update waits until its round is combined.
    """

    def __init__(
        self,
        config: RunConfig,
        stage: Stage,
        network: Network,
        run: RunRecord,
        threads: Threads,
        options: ServeOptions,
    ) -> None:
        settings = PeerSettings(
            me=network.me,
            trainer=run.trainer,
            stage=options.stage,
            num_stages=config.num_stages,
            seed=config.run.seed,
            queue_s=config.links.queue_s,
            gradient_bytes=stage.gradients().nbytes,
            retain_bytes=config.links.retain_bytes,
            record_ttl_s=config.links.record_ttl_s,
            most_left=options.stage if config.model.split_backward else 0,
            staleness=config.optimizer.staleness,
        )
        log = options.log_dir / "events.jsonl" if options.log_dir else None
        super().__init__(config, network, settings, log, options.failpoints)
        self.links.know(run.trainer, run.known_addresses)
        self.stage = stage
        self._options = options
        self._threads = threads
        self._batch_shape = torch.Size([config.batch.microbatch, config.model.sequence])
        threads.torch.deliver_within(self.links.together)
        self._announced: Announce | None = None
        self._announcement = asyncio.Event()
        network.relays.on_change(self._announcement.set)
        self._look_again = asyncio.Event()  # into the directory
        self._transfers = Transfers(stage.device)
        self._inputs: dict[MicrobatchId, tuple[Arriving, torch.Tensor]] = {}  # and targets
        self._forwarded: dict[MicrobatchId, Forwarded] = {}
        self._left: dict[MicrobatchId, Forwarded] = {}  # by backward, for later
        self._outputs: dict[MicrobatchId, Tensors] = {}
        self._output_grads: dict[MicrobatchId, Arriving] = {}
        self._input_grads: dict[MicrobatchId, torch.Tensor] = {}
        self._kept: tuple[dict[MicrobatchId, Any], ...] = (
            self._inputs,
            self._forwarded,
            self._left,
            self._outputs,
            self._output_grads,
            self._input_grads,
        )
        self._parts = Parts(network.me, config.precision.gradients)
        self._loading: asyncio.Task[None] | None = None
        self._acts: dict[type[Instruction], Callable[[Any], None]] = {
            Send: self._send,
            KeepInput: self._keep_input,
            KeepGradient: self._keep_gradient,
            KeepPart: self._keep_part,
            RunForward: self._run_forward,
            RunBackward: self._run_backward,
            RunWeightGradients: self._run_weight_gradients,
            Forget: self._forget,
            DropFrames: self._drop_frames,
            ClearGradients: self._clear_gradients,
            SumPart: self._sum_part,
            CombineParts: self._combine_parts,
            DropRound: self._drop_round,
            StepOptimizer: self._step_optimizer,
            LoadState: self._load,
            Announce: self._announce,
        }

    async def run(self, switch: StopSwitch) -> str:
        """Until the core stops; the reason. Raises RunError when it stops with an error."""
        duties = [self._announce_again_and_again()]
        if not self.stage.is_last:
            duties.append(self._watch_next_stage())
        duties.append(self._watch_replicas())
        started = Started(self.stage.version, self.stage.digest())
        try:
            return await self.live(switch, started, duties)
        finally:
            self._transfers.close()

    def _receive(self, sender: PeerId, message: Message, tensors: Tensors) -> None:
        if isinstance(message, Standing) and message.serving:
            self._look_again.set()  # where it is stands in the directory
        super()._receive(sender, message, tensors)

    # ------------------------------------------------------------------ acting

    def act(self, instruction: Instruction) -> None:
        self._acts[type(instruction)](instruction)

    def _send(self, send: Send) -> None:
        part = send.payload
        if not isinstance(part, GradientPart) or part.summed:
            self.links.send(send.to, send.message, self._tensors(part))
            return
        encode = partial(self._parts.encode, self._my_slice(part.step, part.index, part.parts))
        self._reduce(encode, lambda encoded: self.links.send(send.to, send.message, (encoded,)))

    def _keep_input(self, keep: KeepInput) -> None:
        inputs, targets = self.process.arrived
        self._inputs[keep.microbatch] = (self._transfers.to_device(inputs), targets)

    def _keep_gradient(self, keep: KeepGradient) -> None:
        gradient = self._transfers.to_device(self.process.arrived[0])
        self._output_grads[keep.microbatch] = gradient

    def _keep_part(self, keep: KeepPart) -> None:
        if not (keep.summed and keep.parts):
            self._parts.keep(keep, self.process.arrived[0])
            return
        mean = self._parts.mean(keep.step, keep.round, keep.parts, self.stage.gradients())
        summed = self.process.arrived[0]
        self._reduce(partial(self._parts.place, mean, keep.index, summed))

    def _run_forward(self, run: RunForward) -> None:
        mb = run.microbatch
        compute = partial(self._forward, mb, self._inputs[mb])
        self._compute(partial(self._named, "forward", mb, compute), self._computed)

    def _run_backward(self, run: RunBackward) -> None:
        mb = run.microbatch
        graph, gradient = self._forwarded.pop(mb), self._output_grads.pop(mb, None)
        self._inputs.pop(mb, None)
        compute = partial(self._backward, run, graph, gradient)
        self._compute(partial(self._named, "backward", mb, compute), self._computed)

    def _run_weight_gradients(self, run: RunWeightGradients) -> None:
        mb = run.microbatch
        rest = partial(self._add_weight_gradients, mb, self._left.pop(mb))
        self._compute(partial(self._named, "backward", mb, rest), self._computed)

    def _forget(self, forget: Forget) -> None:
        for kept in self._kept:
            kept.pop(forget.microbatch, None)

    def _drop_frames(self, drop: DropFrames) -> None:
        self._outputs.pop(drop.microbatch, None)
        self._input_grads.pop(drop.microbatch, None)

    def _clear_gradients(self, _: ClearGradients) -> None:
        self._compute(self.stage.clear_gradients)

    def _sum_part(self, part: SumPart) -> None:
        mean = self._parts.mean(part.step, part.round, part.parts, self.stage.gradients(part.step))
        slices = self._parts.take_slices(part)
        mine = self._my_slice(part.step, part.index, part.parts)
        add = partial(self._parts.sum_up, part, mean, slices, mine)
        self._reduce(add, self.process.feed)

    def _combine_parts(self, what: CombineParts) -> None:
        mean = self._parts.mean(what.step, what.round, what.parts, self.stage.gradients(what.step))
        early = self._parts.take_early_sums(what)
        combine = partial(self._parts.combine, what, mean, early)
        self._reduce(combine, self.process.feed)

    def _drop_round(self, what: DropRound) -> None:
        self._parts.drop(what.step, what.round)

    def _step_optimizer(self, what: StepOptimizer) -> None:
        mean = self._parts.take_reduced(what.step, what.round)
        self._compute(partial(self._step, what, mean.values), partial(self._stepped, mean))

    def _load(self, what: LoadState) -> None:
        if self._loading is not None:
            self._loading.cancel()
        self._loading = self.start(self._load_state(what.version, what.donors))

    def _announce(self, what: Announce) -> None:
        self._announced = what
        self._announcement.set()

    def _compute(self, work: Callable[[], Any], then: Callable[[Any], None] | None = None) -> None:
        """Run on the torch thread; the outcome comes back to the loop."""
        self._run(self._threads.torch, work, then)

    def _reduce(self, work: Callable[[], Any], then: Callable[[Any], None] | None = None) -> None:
        """Run on the reduce's own thread, beside forwards and backwards."""
        self._run(self._threads.reduce, work, then)

    def _computed(self, outcome: Computed) -> None:
        """A forward or backward is done, but for its copy to the host where there is one."""
        if callable(outcome):
            self._run(self._threads.to_host, outcome, self.process.feed)
        else:
            self.process.feed(outcome)

    def _run(
        self, worker: Worker, work: Callable[[], Any], then: Callable[[Any], None] | None
    ) -> None:
        def done(outcome: Outcome) -> None:
            if outcome.error is not None:
                self.process.crash(outcome.error)
            elif then is not None and not self.process.stopped.done():
                then(outcome.result)

        worker.run(work, done)

    def _tensors(self, payload: Payload | None) -> Tensors:
        match payload:
            case None:
                return ()
            case Output(mb):
                return self._outputs[mb]
            case InputGrad(mb):
                return (self._input_grads[mb],)
            case GradientPart(step, number, index, summed=True):
                return (self._parts.sum_of(step, number, index),)
        raise AssertionError(f"a peer has no {payload}")

    def fits(self, message: Message, tensors: Tensors) -> bool:
        """Whether the tensors may be what the message says. Others may send anything."""
        match message:
            case Forward() | Recover() if self.stage.is_first or isinstance(message, Forward):
                if len(tensors) != 2 or tensors[1].shape != self._batch_shape:
                    return False
                is_whole = len(tensors[0].shape) > 0 and len(tensors[0]) == len(tensors[1])
                return is_whole and not tensors[1].dtype.is_floating_point
            case Backward(microbatch=mb):
                if len(tensors) != 1 or not tensors[0].dtype.is_floating_point:
                    return False
                output = self._outputs.get(mb)
                return output is None or tensors[0].shape == output[0].shape
            case Part():
                return self._parts.fits(tensors, self.stage.gradients())
        return True

    # ------------------------------------------------------------------ on the torch thread

    # What a computation needs is handed to it, because the core may have it forgotten meanwhile.

    def _named(self, what: str, mb: MicrobatchId, compute: Callable[[], Computed]) -> Computed:
        """Compute; whatever the model's code raises is told with where it happened."""
        try:
            return compute()
        except Exception as error:
            where = f"{what} of microbatch {mb} at stage {self._options.stage}"
            raise RunError(f"{where} failed: {type(error).__name__}: {error}") from error

    def _forward(self, mb: MicrobatchId, received: tuple[Arriving, torch.Tensor]) -> Computed:
        started = time.perf_counter()
        inputs, targets = received[0].take(), received[1]
        if not self.stage.is_first:
            inputs = inputs.to(self.stage.dtype)
        forwarded = self.stage.forward(mb, inputs, targets if self.stage.is_last else None)
        if not mb.held_out:
            self._forwarded[mb] = forwarded

        def done(frame_bytes: int) -> Event:
            seconds, loss_sum = time.perf_counter() - started, forwarded.loss_sum or 0.0
            return ForwardDone(mb, seconds, loss_sum, forwarded.tokens, frame_bytes)

        def keep(output: torch.Tensor) -> Event:
            self._outputs[mb] = (output, targets)
            return done(output.nbytes + targets.nbytes)

        return done(0) if forwarded.output is None else self._bring(forwarded.output, keep)

    def _backward(
        self, what: RunBackward, forwarded: Forwarded, arriving: Arriving | None
    ) -> Computed:
        started = time.perf_counter()
        mb = what.microbatch
        output_grad = None if arriving is None else arriving.take().to(self.stage.dtype)
        input_grad = self.stage.backward(
            forwarded, output_grad, accumulate=what.accumulate, later=what.later
        )
        if what.later:
            self._left[mb] = forwarded

        def done(frame_bytes: int) -> Event:
            return BackwardDone(mb, time.perf_counter() - started, frame_bytes)

        def keep(gradient: torch.Tensor) -> Event:
            self._input_grads[mb] = gradient
            return done(gradient.nbytes)

        return done(0) if input_grad is None else self._bring(input_grad, keep)

    def _add_weight_gradients(self, mb: MicrobatchId, forwarded: Forwarded) -> Event:
        started = time.perf_counter()
        self.stage.add_weight_gradients(forwarded)
        return WeightGradientsDone(mb, time.perf_counter() - started)

    def _bring(self, tensor: torch.Tensor, keep: Callable[[torch.Tensor], Event]) -> Computed:
        """To the host, as it goes over the wire. From CUDA that is waited for elsewhere, so that
        the next computation begins meanwhile."""
        if self.config.precision.activations == "bfloat16":
            tensor = tensor.to(torch.bfloat16)
        leaving = self._transfers.to_host(tensor)
        if leaving.ready is None:
            return keep(leaving.host)
        return lambda: keep(leaving.wait())

    def _my_slice(self, step: int, index: int, parts: int) -> torch.Tensor:
        """A view of what is accumulated here."""
        gradients = self.stage.gradients(step)
        return gradients[part_range(gradients.numel(), index, parts)]

    def _step(
        self, what: StepOptimizer, reduced: torch.Tensor
    ) -> tuple[Stepped, memoryview | None]:
        scale = clip_scale(what.norm, self.config.optimizer.clip_norm)
        its_digest = self.stage.step(reduced, scale)
        version = what.step + 1
        data = None
        if what.snapshot:
            data = write_snapshot(self._options.stage, version, self.stage.live_state())
        return Stepped(version, its_digest), data

    def _stepped(self, mean: Mean, outcome: tuple[Stepped, memoryview | None]) -> None:
        event, data = outcome
        self._parts.give_back(mean)
        if data is not None:
            self.shelf.promise(self._options.stage, event.version)
            self.start(self._keep_snapshot(event.version, data))
        self.process.feed(event)

    async def _keep_snapshot(self, version: int, data: memoryview) -> None:
        """For whoever asks. Hashed beside the next step."""
        stage = self._options.stage
        try:
            its_digest = await asyncio.to_thread(digest_of, data)
            self.shelf.put(Snapshot(stage, version, data, its_digest))
        finally:
            self.shelf.break_promise(stage, version)

    async def _load_state(self, version: int, donors: tuple[PeerId, ...]) -> None:
        def load(snapshot: Snapshot) -> Event:
            source = f"the snapshot of version {version}"
            self.stage.load_state(read_snapshot(snapshot.data, source), version)
            return StateLoaded(version, self.stage.digest())

        def build() -> Event:
            options = self._options
            self.stage = options.new_stage(self.config, options.stage, options.device)
            return StateLoaded(0, self.stage.digest())

        try:
            if donors or version:
                snapshot = await self.fetches.get(
                    self._options.stage, version, donors, self.stage.state_bytes + HEADER_BYTES
                )
                self.shelf.put(snapshot)
                work = partial(load, snapshot)
            else:
                work = partial(build)
            event = await self._threads.torch.call(work)
        except SwarmError as error:
            event = StateUnavailable(version, str(error))
        self.process.feed(event)

    # ------------------------------------------------------------------ the directory

    async def _announce_again_and_again(self) -> None:
        """Write this peer's record when it changes, and before it expires."""
        ttl_s = self.config.links.record_ttl_s
        while True:
            self._announcement.clear()
            if self._announced is not None:
                record = PeerRecord(
                    run=self.config.run.name,
                    stage=self._options.stage,
                    peer=self.network.me,
                    status=self._announced.status,
                    version=self._announced.version,
                    addresses=self.network.daemon.addresses(),
                    direct=self.links.addresses("direct"),
                )
                await self.network.directory.announce(record, ttl_s)
            try:
                async with asyncio.timeout(ttl_s / 3):
                    await self._announcement.wait()
            except TimeoutError:
                continue  # time to refresh the record

    async def _watch_next_stage(self) -> None:
        def seen(stage: int, peers: tuple[PeerId, ...]) -> None:
            self.process.feed(PeersSeen(stage, peers))

        await watch_stage(
            self.network.directory,
            self.links,
            self.config.run.name,
            self._options.stage + 1,
            frozenset({"serving"}),
            seen,
            self.config.links.refresh_s,
            self._look_again,
        )

    async def _watch_replicas(self) -> None:
        """So that it is known where they are, for reduces and for the state."""
        await watch_stage(
            self.network.directory,
            self.links,
            self.config.run.name,
            self._options.stage,
            frozenset({"joining", "serving", "leaving"}),
            lambda stage, peers: None,
            self.config.links.refresh_s,
        )
