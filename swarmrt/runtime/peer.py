"""A peer: the PeerCore with real tensors, links and a directory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from swarmrt.config import RunConfig
from swarmrt.errors import AccessError, DirectoryError, RunError, SwarmError
from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import (
    Barred,
    FailedIn,
    Hail,
    Message,
    NotInvited,
    Part,
    Standing,
    Welcome,
)
from swarmrt.model.layout import layout_of
from swarmrt.model.optimizer import clip_scale
from swarmrt.model.stage import Forwarded, Stage
from swarmrt.runtime.addresses import MAX_ADDRESSES
from swarmrt.runtime.admission import Admission
from swarmrt.runtime.failpoints import Failpoints
from swarmrt.runtime.faults import LinkFaults
from swarmrt.runtime.fetching import Wanted
from swarmrt.runtime.fitting import Fitting
from swarmrt.runtime.kept_runs import KeptRun
from swarmrt.runtime.network import LOOPBACK, Network, watch_stage
from swarmrt.runtime.parts import Mean, Parts, part_range
from swarmrt.runtime.place import Place
from swarmrt.runtime.records import PeerRecord
from swarmrt.runtime.shell import Shell, Tensors
from swarmrt.runtime.snapshot import (
    Snapshot,
    digest_of,
    read_snapshot,
    write_snapshot,
)
from swarmrt.runtime.stopping import StopSwitch
from swarmrt.runtime.transfers import Arriving, Computation, Transfers
from swarmrt.runtime.trouble import is_own_trouble, said_by
from swarmrt.runtime.worker import Outcome, Worker
from swarmrt.scheduler.events import (
    BackwardDone,
    ComputeFailed,
    Event,
    ForwardDone,
    PartUnfit,
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
    DropPart,
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
from swarmrt.trust.joining_line import JoinLine
from swarmrt.trust.papers import GuestsPapers
from swarmrt.trust.sealing import key_of
from swarmrt.trust.statements import Published

log = logging.getLogger("swarmrt.peer")

Computed = Event | Callable[[], Event]  # the call waits for the copy to the host


@dataclass(frozen=True)
class ServeOptions:
    """What `swarmrt serve` was asked for."""

    line: JoinLine  # of the run
    stage: int
    kept: KeptRun | None = None  # where this machine keeps what it knows of the run
    place: Place = LOOPBACK
    identity: Path | None = None
    device: str = "cpu"
    threads: int | None = None
    allow_models: frozenset[str] = frozenset()  # builders that may run here
    max_memory_bytes: float | None = None  # of the device; None for a share of what is free
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
        run: Published,
        threads: Threads,
        options: ServeOptions,
    ) -> None:
        settings = PeerSettings(
            me=network.me,
            trainer=PeerId(run.trainer),
            stage=options.stage,
            num_stages=config.num_stages,
            seed=config.run.seed,
            queue_s=config.links.queue_s,
            gradient_bytes=stage.gradients().nbytes,
            retain_bytes=config.links.retain_bytes,
            record_ttl_s=config.links.record_ttl_s,
            most_left=options.stage if config.model.split_backward else 0,
            staleness=config.optimizer.staleness,
            microbatches=config.batch.microbatches,
            eval_microbatches=config.evaluation.microbatches,
        )
        log = options.log_dir / "events.jsonl" if options.log_dir else None
        door = network.door(config, stage=options.stage)
        super().__init__(config, network, door, settings, log, options.failpoints)
        self._trainer = PeerId(run.trainer)
        self._born, self._epoch = run.age
        self._know_trainer(run)
        assert isinstance(network.papers, GuestsPapers)
        self._papers = network.papers
        self._admission = Admission(
            self._papers, network.me, self._trainer, (options.stage,), self.links, self._is_member
        )
        self.stage = stage
        self._options = options
        self._threads = threads
        self._layout = layout_of(stage)
        self._fitting = Fitting(config, options.stage)
        threads.torch.deliver_within(self.links.together)
        self._targets_key = b""  # for the last stage
        self._announced: Announce | None = None
        self._announcement = asyncio.Event()
        network.relays.on_change(self._announcement.set)
        self._look_again = asyncio.Event()  # into the directory
        self._transfers = Transfers(stage.device)
        self._inputs: dict[MicrobatchId, tuple[Arriving, torch.Tensor]] = {}  # and sealed targets
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
        self._parts = Parts(network.me, config.precision.gradients, stage.gradients().numel())
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
            DropPart: self._parts.drop_part,
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
        duties += [self._watch_replicas(), self._admission.keep(self._find_trainer)]
        started = Started(self.stage.version, self.stage.digest())
        try:
            entering = self._admission.enter(self._find_trainer)
            return await self.live(switch, started, duties, entering)
        finally:
            self._transfers.close()

    # ------------------------------------------------------------------ being a member

    async def _find_trainer(self) -> None:
        """Look where it is, in case that it has moved."""
        try:
            published = await self.network.directory.find_run(self._papers.run)
        except DirectoryError as error:
            log.warning("%s", error)
        else:
            if published is not None and published.trainer == self._trainer:
                self._know_trainer(published)

    def _know_trainer(self, run: Published) -> None:
        known = {"libp2p": run.addresses, "direct": run.direct}
        self.links.know(self._trainer, known)

    def _is_member(self, welcome: Welcome) -> None:
        self._targets_key = key_of(welcome.targets_key)
        if self._options.kept is not None:
            self._options.kept.keep_membership(welcome.membership)
        self._announcement.set()  # the record shows it

    def _receive(self, sender: PeerId, message: Message, tensors: Tensors) -> None:
        match message:
            case Welcome() | NotInvited():
                try:
                    self._admission.answered(message)
                except AccessError as error:
                    self.process.crash(error)  # it is no member, and nothing can make it one
                return
            case Barred(peers):
                self._bar(peers)
                return
            case Standing(serving=True):
                self._look_again.set()  # where it is stands in the directory
            case Hail(epoch) if epoch > self._epoch:
                self._epoch = epoch
                if self._options.kept is not None:
                    self._options.kept.keep_newest((self._born, epoch))
        super()._receive(sender, message, tensors)

    def _bar(self, peers: tuple[PeerId, ...]) -> None:
        """The owner has turned them out."""
        self.door.bar(peers)
        for peer in peers:
            self.links.drop(peer)

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
        summed = self.process.arrived[0]
        unfit = self._parts.unfit(keep, keep.index, keep.sender, summed)
        if unfit is not None:
            self.process.feed(unfit)
            return
        mean = self._parts.mean(keep.step, keep.round, keep.parts, self.stage.gradients())
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
        self._compute(partial(self._named, "weights", mb, rest), self._computed)

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
        if isinstance(slices, PartUnfit):
            self.process.feed(slices)
            return
        mine = self._my_slice(part.step, part.index, part.parts)
        add = partial(self._parts.sum_up, part, mean, slices, mine)
        self._reduce(add, self.process.feed)

    def _combine_parts(self, what: CombineParts) -> None:
        mean = self._parts.mean(what.step, what.round, what.parts, self.stage.gradients(what.step))
        early = self._parts.take_early_sums(what)
        if isinstance(early, PartUnfit):
            self.process.feed(early)
            return
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
        self._loading = self.start(self._load_state(what))

    def _announce(self, what: Announce) -> None:
        self._announced = what
        self._announcement.set()

    def _compute(self, work: Callable[[], Any], then: Callable[[Any], None] | None = None) -> None:
        """Run on the torch thread; the outcome comes back to the loop."""
        self._run(self._threads.torch, work, then)

    def _reduce(self, work: Callable[[], Any], then: Callable[[Any], None] | None = None) -> None:
        """Run on the reduce's own thread, beside forwards and backwards."""
        self._run(self._threads.reduce, partial(self._transfers.beside, work), then)

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
        """Whether the tensors are what the message says."""
        if isinstance(message, Part):
            return self._parts.fits(tensors, self.stage.gradients())
        return self._fitting.fits(message, tensors)

    # ------------------------------------------------------------------ on the torch thread

    # What a computation needs is handed to it, because the core may have it forgotten meanwhile.

    def _named(self, what: FailedIn, mb: MicrobatchId, compute: Callable[[], Computed]) -> Computed:
        """Compute. An error is an outcome, as what was sent may be at fault. Where it is not, the
        error ends the process, and is told with where it happened."""
        try:
            return compute()
        except Exception as error:
            if is_own_trouble(error, self.stage.device):
                where = f"{what} of microbatch {mb} at stage {self._options.stage}"
                raise RunError(f"{where} failed: {said_by(error)}") from error
            log.warning("%s of microbatch %s failed: %s", what, mb, said_by(error))
            return ComputeFailed(mb, what, said_by(error))

    def _forward(self, mb: MicrobatchId, received: tuple[Arriving, torch.Tensor]) -> Computed:
        computation = Computation(self.stage.device)
        came, targets = received[0].take(), received[1]
        inputs = came
        if not self.stage.is_first:
            inputs = inputs.to(self.stage.dtype)
        opened = None
        if self.stage.is_last:
            opened = self._fitting.open_targets(self._targets_key, mb, targets)
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
        output_grad = None if arriving is None else arriving.take().to(self.stage.dtype)
        input_grad = self.stage.backward(
            forwarded, output_grad, accumulate=what.accumulate, later=what.later
        )
        computation.end()
        if what.later:
            self._left[mb] = forwarded

        def done(frame_bytes: int = 0) -> Event:
            return BackwardDone(mb, computation.seconds(), frame_bytes)

        def keep(gradient: torch.Tensor) -> Event:
            self._input_grads[mb] = gradient
            return done(gradient.nbytes)

        return (
            self._over(computation, done) if input_grad is None else self._bring(input_grad, keep)
        )

    def _add_weight_gradients(self, mb: MicrobatchId, forwarded: Forwarded) -> Computed:
        computation = Computation(self.stage.device)
        self.stage.add_weight_gradients(forwarded)
        computation.end()
        return self._over(computation, lambda: WeightGradientsDone(mb, computation.seconds()))

    def _over(self, computation: Computation, done: Callable[[], Event]) -> Computed:
        """What `done` gives once the computation is over. From CUDA that is waited for elsewhere:
        a receipt is for what has been added, and estimates are of what the device takes."""
        return done if computation.is_queued else done()

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

    async def _load_state(self, what: LoadState) -> None:
        version, donors = what.version, what.donors

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
                wanted = Wanted(self._layout, version, what.digest)
                snapshot = await self.fetches.get(wanted, donors)
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
                    run=str(self._papers.run),
                    stage=self._options.stage,
                    peer=self.network.me,
                    status=self._announced.status,
                    version=self._announced.version,
                    membership=self._papers.membership,
                    life_s=ttl_s,
                    addresses=self.network.daemon.addresses()[:MAX_ADDRESSES],
                    direct=self.links.addresses("direct"),
                )
                await self.network.directory.announce(self._papers.run, record, ttl_s)
            try:
                async with asyncio.timeout(ttl_s / 3):
                    await self._announcement.wait()
            except TimeoutError:
                continue  # time to refresh the record

    async def _watch_next_stage(self) -> None:
        """So that it is known where they are: who is given work is the trainer's word."""
        await watch_stage(
            self.network.directory,
            self.links,
            self._papers.run,
            self._options.stage + 1,
            frozenset({"serving"}),
            lambda stage, peers: None,
            self.config.links.refresh_s,
            self._look_again,
        )

    async def _watch_replicas(self) -> None:
        """So that it is known where they are, for reduces and for the state."""
        await watch_stage(
            self.network.directory,
            self.links,
            self._papers.run,
            self._options.stage,
            frozenset({"joining", "serving", "leaving"}),
            lambda stage, peers: None,
            self.config.links.refresh_s,
        )
