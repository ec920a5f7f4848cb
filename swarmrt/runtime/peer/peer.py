"""A seat of a peer: what its core's instructions do with real tensors and links."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from swarmrt.errors import RunChanged
from swarmrt.ids import PeerId, seat_of
from swarmrt.messages import (
    Ending,
    GetState,
    Hail,
    Message,
    Part,
    Standing,
    Welcome,
)
from swarmrt.model.layout import layout_of
from swarmrt.model.stage import Stage
from swarmrt.run_identity import fingerprint
from swarmrt.runtime.access.membership import Membership
from swarmrt.runtime.computing.computations import Computations
from swarmrt.runtime.computing.fitting import Fitting
from swarmrt.runtime.computing.transfers import Transfers
from swarmrt.runtime.directory.presence import Abilities, Presence
from swarmrt.runtime.peer.causes import cause_of, microbatch_of
from swarmrt.runtime.peer.computing import Computing
from swarmrt.runtime.peer.jobs import Jobs
from swarmrt.runtime.peer.left_out import left_out_text, waits_for_text
from swarmrt.runtime.peer.lent_device import LentDevice
from swarmrt.runtime.peer.loading import Loading
from swarmrt.runtime.peer.parts import Parts, combined_bytes
from swarmrt.runtime.peer.payloads import payload_of
from swarmrt.runtime.peer.reducing import Reducing
from swarmrt.runtime.peer.serve_options import ServeOptions, Threads
from swarmrt.runtime.peer.updates import Updates
from swarmrt.runtime.process.shell import Shell, Surroundings, Tensors
from swarmrt.runtime.state.copying import Copying
from swarmrt.runtime.state.snapshot import snapshot_bytes
from swarmrt.scheduler.events import Started
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
    StopLoading,
    SumPart,
    UpdatedPart,
    UpdatePart,
)
from swarmrt.scheduler.peer.core import PeerCore
from swarmrt.scheduler.settings import PeerSettings
from swarmrt.trust.sealing import key_of

log = logging.getLogger("swarmrt.peer")


class Peer(Shell):
    """A shell with a stage, and one table of who carries out which instruction."""

    def __init__(
        self,
        around: Surroundings,
        membership: Membership,
        stage: Stage,
        threads: Threads,
        options: ServeOptions,
        update: tuple[int, float] = (-1, 0.0),
        holds: int = 0,
    ) -> None:
        """Take a stage, and the round and norm of the `update` that made its version, if known. It
        `holds` so many microbatches at a time; 0 for as many as there are."""
        config, network, seat = around.config, around.network, stage.stage_index
        me = seat_of(network.me, seat)
        settings = PeerSettings.of(
            config,
            me,
            membership.trainer,
            seat,
            gradient_bytes=stage.gradients().nbytes,
            wire_bytes=combined_bytes(config, stage.gradients(), stage.contribution_numel),
            update_bytes=stage.state_rows * stage.gradients().nbytes,
            trainer_gone_s=options.trainer_gone_s,
            is_spare=options.is_spare,
            island=options.island,
            holds=holds,
        )
        super().__init__(around, seat, settings, _log_of(seat, options), options.failpoints)
        self._options, self._update = options, update
        self._trainer = settings.trainer
        self._fingerprint = fingerprint(config)
        self._membership = membership
        self._microbatch_tokens = config.batch.microbatch * config.model.sequence
        layout = layout_of(stage)
        abilities = Abilities(
            stage.device.type,
            snapshot_bytes(seat, stage.version, layout.tensors),
            self._tokens_per_s,
            options.is_spare,
        )
        papers = membership.papers
        self._presence = Presence(config, seat, network, self.links, papers, abilities)
        self._fitting = Fitting(config, seat)
        self._transfers = Transfers(stage.device)
        self._copying = Copying(seat, self._transfers)
        self._computations = computations = Computations(
            config, stage, self._transfers, self._copying, self._fitting, options
        )
        jobs = Jobs(seat, threads, self.process, self._transfers)
        if network.faults is not None:
            network.faults.on_hang(jobs.hang)
        self._loading = Loading(
            seat,
            layout,
            self.process,
            jobs,
            computations,
            self.fetches,
            self.shelf,
            start=self.start,
            tell_trainer=partial(self.send, self._trainer),
        )
        computing = Computing(self.process, jobs, computations)
        parts = Parts(me, payload_of(config), stage.num_parameters, self._combined)
        updates, made = Updates(me, stage), self._loading.made
        self.lent = LentDevice(self.process, jobs, computations, self.start)
        self._reducing = reducing = Reducing(self.process, jobs, computations, parts, updates, made)
        self._acts: dict[type[Instruction], Callable[[Any], None]] = {
            Send: self._send,
            KeepInput: computing.keep_input,
            KeepGradient: computing.keep_gradient,
            RunForward: computing.forward,
            RunBackward: computing.backward,
            RunWeightGradients: computing.weight_gradients,
            Forget: computing.forget,
            DropFrames: computing.drop_frames,
            ClearGradients: computing.clear_gradients,
            KeepPart: reducing.keep,
            Contribute: reducing.contribute,
            SumPart: reducing.sum_part,
            CombineParts: reducing.combine,
            UpdatePart: reducing.update_part,
            JoinUpdate: reducing.join,
            DropPart: reducing.drop_part,
            DropRound: reducing.drop_round,
            StepOptimizer: reducing.step,
            LoadState: self._loading.load,
            StopLoading: self._loading.stop,
            FreeDevice: self.lent.free,
            ReportLeftOut: self._left_out,
            ReportWaitsFor: self._waits_for,
            Announce: self._presence.announce,
            RenewEvery: self._presence.renew_every,
        }

    @property
    def stage(self) -> Stage:
        """The stage as it is now: another one after a state at version 0 was built anew."""
        return self._computations.stage

    def started(self) -> Started:
        return Started(self.stage.version, self.stage.digest(), *self._update)

    def duties(self) -> list[Coroutine[Any, Any, None]]:
        watches = self._presence.watches()
        return [*super().duties(), self._presence.keep_announced(), *watches]

    async def close(self) -> None:
        await super().close()
        await asyncio.to_thread(self._close_copies)

    @property
    def update(self) -> tuple[int, float]:
        """The round and the norm of the update that made the stage's version, if they are known."""
        core = self.process.core
        assert isinstance(core, PeerCore)
        return core.update if core.seat.version == self.stage.version else (-1, 0.0)

    def _combined(self, step: int) -> int:
        """Return how many values replicas combine after a step."""
        return self.stage.contribution_numel(step)

    def _tokens_per_s(self) -> float:
        """Return how many tokens go forward and backward here in a second; 0 while that is not
        known."""
        core = self.process.core
        assert isinstance(core, PeerCore)
        service_s = core.service_s
        return self._microbatch_tokens / service_s if service_s > 0 else 0.0

    def _close_copies(self) -> None:
        self._copying.close()
        self._transfers.close()

    def is_member(self, welcome: Welcome) -> None:
        """Take note of what a membership of this process has brought."""
        self._computations.targets_key = key_of(welcome.targets_key)
        self._presence.renew()  # the record shows the membership

    def receive(self, sender: PeerId, message: Message, tensors: Tensors) -> None:
        match message:
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
                self._loading.copy_again(version)
        super().receive(sender, message, tensors)

    def fits(self, message: Message, tensors: Tensors) -> bool:
        """Return whether the tensors are what the message says."""
        if isinstance(message, Part):
            return self._reducing.fits(message, tensors)
        return self._fitting.fits(message, tensors)

    def take_leave(self, error: Exception) -> None:
        """Tell the trainer why this peer ends, and in which microbatch, if one is at fault."""
        self.send(self._trainer, Ending(cause_of(error), microbatch_of(error)))

    # ------------------------------------------------------------------ acting

    def act(self, instruction: Instruction) -> None:
        self._acts[type(instruction)](instruction)

    def _send(self, send: Send) -> None:
        """Send a message with its payload. A slice of the gradient is encoded first."""
        part = send.payload
        if not isinstance(part, GradientPart) or part.summed:
            self.send(send.to, send.message, self._tensors(part))
            return
        self._reducing.encode(part, lambda encoded: self.send(send.to, send.message, (encoded,)))

    def _tensors(self, payload: Payload | None) -> Tensors:
        match payload:
            case None:
                return ()
            case Output(mb):
                return self._computations.output(mb)
            case InputGrad(mb):
                return (self._computations.input_grad(mb),)
            case GradientPart():
                return (self._reducing.sum_of(payload),)
            case UpdatedPart():
                return (self._reducing.updated(payload),)
        raise AssertionError(f"a peer has no {payload}")

    def _left_out(self, report: ReportLeftOut) -> None:
        log.warning("%s", left_out_text(report))

    def _waits_for(self, report: ReportWaitsFor) -> None:
        log.warning("%s", waits_for_text(report))


def _log_of(seat: int, options: ServeOptions) -> Path | None:
    """Return where the log of a seat's core is written: several seats have a folder each."""
    if options.log_dir is None:
        return None
    is_alone = len(options.stages) == 1 and options.moves is None
    folder = options.log_dir if is_alone else options.log_dir / f"stage-{seat}"
    return folder / "events.jsonl"
