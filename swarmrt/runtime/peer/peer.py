"""A peer: what its core's instructions do with real tensors and links."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from swarmrt.config import RunConfig
from swarmrt.errors import AccessError, RunChanged, SwarmError
from swarmrt.ids import PeerId
from swarmrt.messages import (
    Barred,
    Ending,
    GetState,
    Hail,
    Message,
    NotInvited,
    Part,
    Standing,
    Unable,
    Welcome,
)
from swarmrt.model.layout import layout_of
from swarmrt.model.stage import Stage
from swarmrt.run_identity import fingerprint
from swarmrt.runtime.access.membership import Membership
from swarmrt.runtime.computing.computations import Computations, Computed, Copied
from swarmrt.runtime.computing.fitting import Fitting
from swarmrt.runtime.computing.transfers import Transfers
from swarmrt.runtime.directory.network import Network
from swarmrt.runtime.directory.presence import Abilities, Presence
from swarmrt.runtime.faults.faults import Thread
from swarmrt.runtime.links.moving import tell_what_moves
from swarmrt.runtime.peer.causes import cause_of, microbatch_of
from swarmrt.runtime.peer.left_out import left_out_text, waits_for_text
from swarmrt.runtime.peer.parts import Mean, Parts, gradient_bytes
from swarmrt.runtime.peer.serve_options import ServeOptions, Threads
from swarmrt.runtime.peer.updates import Updates, made_of
from swarmrt.runtime.process.shell import Shell, Tensors
from swarmrt.runtime.process.stopping import StopSwitch
from swarmrt.runtime.process.worker import Outcome, Worker
from swarmrt.runtime.state.copying import Copying, keep_copy
from swarmrt.runtime.state.fetching import Wanted
from swarmrt.runtime.state.snapshot import snapshot_bytes
from swarmrt.scheduler.events import PartUnfit, Started, StateUnavailable, Stepped
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
    StopLoading,
    SumPart,
    UpdatedPart,
    UpdatePart,
)
from swarmrt.scheduler.peer.core import PeerCore
from swarmrt.scheduler.settings import PeerSettings
from swarmrt.trust.sealing import key_of
from swarmrt.trust.statements import Published

log = logging.getLogger("swarmrt.peer")


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
        update: tuple[int, float] = (-1, 0.0),
    ) -> None:
        """Take a stage, and the round and norm of the `update` that made its version, if known."""
        settings = PeerSettings.of(
            config,
            network.me,
            PeerId(run.trainer),
            options.stage,
            gradient_bytes=stage.gradients().nbytes,
            wire_bytes=gradient_bytes(config.precision.gradients, stage.gradients()),
            update_bytes=stage.state_rows * stage.gradients().nbytes,
            trainer_gone_s=options.trainer_gone_s,
        )
        log = options.log_dir / "events.jsonl" if options.log_dir else None
        door = network.door(config, stage=options.stage)
        super().__init__(config, network, door, settings, log, options.failpoints)
        self._options, self._update = options, update
        self._trainer = settings.trainer
        self._fingerprint = fingerprint(config)
        self._membership = Membership(
            run, options.stage, network, self.links, self.door, options.kept, self._is_member
        )
        papers = self._membership.papers
        self._microbatch_tokens = config.batch.microbatch * config.model.sequence
        self._layout = layout_of(stage)
        abilities = Abilities(
            stage.device.type,
            snapshot_bytes(options.stage, stage.version, self._layout.tensors),
            self._tokens_per_s,
        )
        self._presence = Presence(config, options.stage, network, self.links, papers, abilities)
        self._threads = threads
        threads.torch.deliver_within(self.links.together)
        if network.faults is not None:
            network.faults.on_hang(self._hang)
        self._fitting = Fitting(config, options.stage)
        self._transfers = Transfers(stage.device)
        self._copying = Copying(options.stage, self._transfers)
        self._computations = Computations(
            config, stage, self._transfers, self._copying, self._fitting, options
        )
        self._parts = Parts(network.me, config.precision.gradients, stage.gradients().numel())
        self._updates = Updates(network.me, stage)
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
            UpdatePart: self._update_part,
            JoinUpdate: self._join_update,
            DropPart: self._drop_part,
            DropRound: self._drop_round,
            StepOptimizer: self._step_optimizer,
            LoadState: self._load,
            StopLoading: self._stop_loading,
            ReportLeftOut: self._left_out,
            ReportWaitsFor: self._waits_for,
            Announce: self._presence.announce,
        }

    @property
    def stage(self) -> Stage:
        """The stage as it is now: another one after a state at version 0 was built anew."""
        return self._computations.stage

    async def run(self, switch: StopSwitch) -> str:
        """Serve until the core stops; return the reason. Raises RunError when it is an error."""
        watches = self._presence.watches()
        duties = [self._presence.keep_announced(), *watches, self._membership.keep()]
        duties.append(tell_what_moves(self.links, self.process.feed))
        started = Started(self.stage.version, self.stage.digest(), *self._update)
        try:
            return await self.live(switch, started, duties, self._membership.enter())
        finally:
            await asyncio.to_thread(self._close_copies)

    @property
    def update(self) -> tuple[int, float]:
        """The round and the norm of the update that made the stage's version, if they are known."""
        core = self.process.core
        assert isinstance(core, PeerCore)
        return core.update if core.seat.version == self.stage.version else (-1, 0.0)

    def _tokens_per_s(self) -> float:
        """Return how many tokens go forward and backward here in a second; 0 while that is not
        known."""
        core = self.process.core
        assert isinstance(core, PeerCore)
        service_s = core.computing.service_s
        return self._microbatch_tokens / service_s if service_s > 0 else 0.0

    def _close_copies(self) -> None:
        self._copying.close()
        self._transfers.close()

    def _is_member(self, welcome: Welcome) -> None:
        self._computations.targets_key = key_of(welcome.targets_key)
        self._presence.renew()  # the record shows the membership

    def _receive(self, sender: PeerId, message: Message, tensors: Tensors) -> None:
        match message:
            case Welcome() | NotInvited():
                try:
                    self._membership.answered(message)
                except AccessError as error:
                    self.process.crash(error)  # it is no member, and nothing can make it one
                return
            case Barred(peers):
                self._membership.bar(peers)
                return
            case Standing(stage=stage, serving=True):
                self._presence.look_again(stage)
            case Hail(epoch) if sender != self._trainer:
                if epoch > self._membership.epoch:
                    self._membership.hailed(epoch)
                    self.process.crash(RunChanged("the run has another trainer now", epoch))
                return
            case Hail(epoch, its):
                is_newest = self._membership.hailed(epoch)
                if is_newest and its not in ("", self._fingerprint):
                    what = "the run has another configuration now"
                    self.process.crash(RunChanged(what, epoch))
                    return
            case GetState(version=version) if sender == self._trainer:
                self._copy_for_trainer(version)
        super()._receive(sender, message, tensors)

    def fits(self, message: Message, tensors: Tensors) -> bool:
        """Return whether the tensors are what the message says."""
        if isinstance(message, Part) and message.updated:
            return self._updates.fits(tensors)
        if isinstance(message, Part):
            return self._parts.fits(tensors, self.stage.gradients())
        return self._fitting.fits(message, tensors)

    def take_leave(self, error: Exception) -> None:
        """Tell the trainer why this peer ends, and in which microbatch, if one is at fault."""
        self.links.send(self._trainer, Ending(cause_of(error), microbatch_of(error)))

    # ------------------------------------------------------------------ acting

    def act(self, instruction: Instruction) -> None:
        self._acts[type(instruction)](instruction)

    def _send(self, send: Send) -> None:
        part = send.payload
        if not isinstance(part, GradientPart) or part.summed:
            self.links.send(send.to, send.message, self._tensors(part))
            return
        mine = self._computations.accumulated(part.step, part.index, part.parts)
        encode = partial(self._parts.encode, mine)
        self._reduce(encode, lambda encoded: self.links.send(send.to, send.message, (encoded,)))

    def _keep_input(self, keep: KeepInput) -> None:
        inputs, targets = self.process.arrived
        self._computations.keep_input(keep.microbatch, inputs, targets)

    def _keep_gradient(self, keep: KeepGradient) -> None:
        self._computations.keep_output_grad(keep.microbatch, self.process.arrived[0])

    def _keep_part(self, keep: KeepPart) -> None:
        if keep.updated:
            self._keep_updated(keep, self.process.arrived[0])
            return
        is_ahead = keep.step > self.stage.version and self._parts.are_encoded
        if not (keep.summed and keep.parts) or is_ahead:  # decoded when their turn comes
            self._parts.keep(keep, self.process.arrived[0])
            return
        summed = self.process.arrived[0]
        unfit = self._parts.unfit(keep, keep.index, keep.sender, summed)
        if unfit is not None:
            self.process.feed(unfit)
            return
        mean = self._parts.mean(keep.step, keep.round, keep.parts, self.stage.gradients())
        self._reduce(partial(self._parts.place, mean, keep.index, summed))

    def _keep_updated(self, keep: KeepPart, part: torch.Tensor) -> None:
        if not keep.parts:
            self._updates.keep(keep, part)
            return
        unfit = self._updates.unfit(keep, keep.index, keep.sender, part)
        if unfit is not None:
            self.process.feed(unfit)
            return
        state = self._updates.state(keep.step, keep.round, keep.parts)
        self._reduce(partial(self._updates.place, state, keep.index, part))

    def _run_forward(self, run: RunForward) -> None:
        self._compute(self._computations.forward(run.microbatch), self._computed)

    def _run_backward(self, run: RunBackward) -> None:
        self._compute(self._computations.backward(run), self._computed)

    def _run_weight_gradients(self, run: RunWeightGradients) -> None:
        self._compute(self._computations.weight_gradients(run.microbatch), self._computed)

    def _forget(self, forget: Forget) -> None:
        self._computations.forget(forget.microbatch)

    def _drop_frames(self, drop: DropFrames) -> None:
        self._computations.drop_frames(drop.microbatch)

    def _clear_gradients(self, _: ClearGradients) -> None:
        self._compute(self.stage.clear_gradients)

    def _sum_part(self, part: SumPart) -> None:
        mean = self._parts.mean(part.step, part.round, part.parts, self.stage.gradients(part.step))
        slices = self._parts.take_slices(part)
        if isinstance(slices, PartUnfit):
            self.process.feed(slices)
            return
        mine = self._computations.accumulated(part.step, part.index, part.parts)
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

    def _update_part(self, what: UpdatePart) -> None:
        state = self._updates.state(what.step, what.round, what.parts)
        mean = self._parts.values(what.step, what.round)
        scale = self._computations.clip_scale(what.norm)
        make = partial(self._updates.make, what, state, self.stage, mean, scale)
        self._reduce(make, self.process.feed)

    def _join_update(self, what: JoinUpdate) -> None:
        early = self._updates.take_early(what)
        if isinstance(early, PartUnfit):
            self.process.feed(early)
            return
        state = self._updates.state(what.step, what.round, what.parts)
        expected = None
        if what.owners:
            mean = self._parts.values(what.step, what.round)
            scale = self._computations.clip_scale(what.norm)
            expected = partial(made_of, self.stage, what.step, mean, scale)
        join = partial(self._updates.join, what, state, early, expected)
        self._reduce(join, self.process.feed)

    def _drop_part(self, what: DropPart) -> None:
        (self._updates if what.updated else self._parts).drop_part(what)

    def _drop_round(self, what: DropRound) -> None:
        self._parts.drop(what.step, what.round)
        self._updates.drop(what.step, what.round)

    def _step_optimizer(self, what: StepOptimizer) -> None:
        if what.skip:
            self._compute(self._computations.skip(what), self._made)
            return
        if what.adopt:
            self._parts.drop(what.step, what.round)
            state = self._updates.take(what.step, what.round)
            self._compute(self._computations.adopt(what, state), self._made)
            return
        mean = self._parts.take_reduced(what.step, what.round)
        update = self._computations.step(what, mean.values)
        self._compute(update, partial(self._stepped, mean))

    def _load(self, what: LoadState) -> None:
        if self._loading is not None:
            self._loading.cancel()
        self._loading = self.start(self._load_state(what))

    def _stop_loading(self, _: StopLoading) -> None:
        if self._loading is not None:
            self._loading.cancel()
        self.fetches.let_go()

    def _left_out(self, report: ReportLeftOut) -> None:
        log.warning("%s", left_out_text(report))

    def _waits_for(self, report: ReportWaitsFor) -> None:
        log.warning("%s", waits_for_text(report))

    def _tensors(self, payload: Payload | None) -> Tensors:
        match payload:
            case None:
                return ()
            case Output(mb):
                return self._computations.output(mb)
            case InputGrad(mb):
                return (self._computations.input_grad(mb),)
            case GradientPart(step, number, index, summed=True):
                return (self._parts.sum_of(step, number, index),)
            case UpdatedPart(step, number, index, parts):
                return (self._updates.state(step, number, parts).part(index),)
        raise AssertionError(f"a peer has no {payload}")

    def _stepped(self, mean: Mean, outcome: tuple[Stepped, Copied | None]) -> None:
        self._parts.give_back(mean)
        self._made(outcome)

    def _made(self, outcome: tuple[Stepped, Copied | None]) -> None:
        """Keep the snapshot of a version that is made, if one was asked for, and tell the core."""
        event, copied = outcome
        if copied is not None:
            self.shelf.promise(self._options.stage, event.version)
            self.start(keep_copy(self.shelf, self._options.stage, event.version, copied))
        self.process.feed(event)

    def _copy_for_trainer(self, version: int) -> None:
        """Copy the state once more if the trainer wants what was let go, or was never asked for."""
        stage = self._options.stage
        if self._loading is not None and not self._loading.done():
            return
        if version != self.stage.version or self.shelf.has(stage, version):
            return
        self.shelf.promise(stage, version)

        def copying(outcome: tuple[int, Copied]) -> None:
            its_version, copied = outcome
            if its_version == version:
                self.start(keep_copy(self.shelf, stage, version, copied))
            else:
                self.shelf.break_promise(stage, version)  # an update was faster

        self._compute(self._computations.snapshot, copying)

    async def _load_state(self, what: LoadState) -> None:
        version, donors = what.version, what.donors
        self.fetches.let_go(but=(self._options.stage, version))
        try:
            if donors or version:
                wanted = Wanted(self._layout, version, what.digest)
                snapshot = await self.fetches.get(wanted, donors)
                self.shelf.put(snapshot)
                work = self._computations.load(snapshot)
            else:
                work = self._computations.build()
            event = await self._threads.torch.call(work)
        except SwarmError as error:
            why = f"version {version} could not be loaded: {error}"
            log.warning("%s", why)
            self.links.send(self._trainer, Unable(self._options.stage, why))
            event = StateUnavailable(version, str(error))
        self.process.feed(event)

    # ------------------------------------------------------------------ threads

    def _hang(self, thread: Thread, seconds: float) -> None:
        """Let a thread do nothing for a while, as a device does that hangs."""
        worker = self._threads.torch if thread == "compute" else self._threads.reduce
        self._run(worker, partial(time.sleep, seconds), None)

    def _compute(self, work: Callable[[], Any], then: Callable[[Any], None] | None = None) -> None:
        """Run work on the torch thread; its outcome comes back to the loop."""
        self._run(self._threads.torch, work, then)

    def _reduce(self, work: Callable[[], Any], then: Callable[[Any], None] | None = None) -> None:
        """Run work on the reduce's own thread, beside forwards and backwards."""
        self._run(self._threads.reduce, partial(self._transfers.beside, work), then)

    def _computed(self, outcome: Computed) -> None:
        """Take what a forward or backward has given. A copy to the host may still be to come."""
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
