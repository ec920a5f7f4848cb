"""The trainer: the TrainerCore with real data, links, a directory and checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from swarmrt.config import RunConfig
from swarmrt.data import Data
from swarmrt.errors import RunError, SwarmError, UsageError
from swarmrt.ids import PeerId
from swarmrt.messages import GetState, Message, NoState, StateChunk
from swarmrt.runtime.checkpoint import Checkpoint, write_checkpoint
from swarmrt.runtime.directory import RunRecord
from swarmrt.runtime.links import Links
from swarmrt.runtime.network import LOOPBACK, Network, open_network, watch_stage
from swarmrt.runtime.process import EventLog, Process
from swarmrt.runtime.state import Fetches, Shelf, Snapshot, digest_of
from swarmrt.runtime.stopping import StopSwitch
from swarmrt.scheduler.events import (
    CheckpointFailed,
    CheckpointSaved,
    PeerLost,
    PeersSeen,
    Received,
    SendFailed,
    Started,
    StopRequested,
)
from swarmrt.scheduler.instructions import (
    Batch,
    Instruction,
    Payload,
    ReportEvaluation,
    ReportPeer,
    ReportStep,
    ReportWaiting,
    SaveCheckpoint,
    Send,
)
from swarmrt.scheduler.trainer import TrainerSettings

FLUSH_S = 5.0  # for the last messages: peers are told that the run is over

Report = ReportWaiting | ReportStep | ReportEvaluation | ReportPeer
JoinLine = Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class TrainOptions:
    """What `swarmrt train` was asked for, beside the run's configuration."""

    run_dir: Path
    join: tuple[str, ...] = ()
    listen: tuple[str, ...] = LOOPBACK
    identity: Path | None = None
    replicas: tuple[int, ...] | None = None  # to wait for, by stage; one each by default
    resume: Checkpoint | None = None


async def train(
    config: RunConfig,
    data: Data,
    options: TrainOptions,
    switch: StopSwitch,
    report: Callable[[Report], None],
    on_published: JoinLine,
) -> str:
    """Publish the run, train it to its last step, and say why it ended.

    `config` has its stages resolved. `on_published` gets the addresses that others join at.
    Raises RunError when the run cannot go on, UsageError when its name is taken.
    """
    identity = options.identity or options.run_dir / "identity"
    async with open_network(options.join, options.listen, identity) as network:
        published = await network.directory.find_run(config.run.name)
        if published is not None and published.trainer != network.me:
            raise UsageError(
                f"a run named {config.run.name!r} is already published by {published.trainer}; "
                "choose another run.name, or wait until its record has expired"
            )
        epoch = 1 + max(
            options.resume.manifest.epoch if options.resume else 0,
            published.epoch if published else 0,
        )
        trainer = Trainer(config, data, network, epoch, options, report)
        return await trainer.run(switch, on_published)


class Trainer:
    """Feed, take instructions, act."""

    def __init__(
        self,
        config: RunConfig,
        data: Data,
        network: Network,
        epoch: int,
        options: TrainOptions,
        report: Callable[[Report], None],
    ) -> None:
        self.config, self.data, self.network = config, data, network
        self._options, self._epoch, self._report = options, epoch, report
        self._loop = asyncio.get_running_loop()
        self._background: set[asyncio.Task[None]] = set()
        self._saving = asyncio.Lock()
        self.links = Links(
            network.daemon,
            config.run.name,
            config.links.max_message_bytes,
            on_message=self._receive,
            on_lost=self._lost,
            on_send_failed=self._send_failed,
        )
        self._fetches = Fetches(self.links.send)
        self._shelf = Shelf()
        start = options.resume.version if options.resume else 0
        settings = TrainerSettings(
            me=network.me,
            seed=config.run.seed,
            epoch=epoch,
            start_version=start,
            steps=max(config.run.steps, start),
            microbatches=config.batch.microbatches,
            eval_every=config.evaluation.every_steps,
            eval_microbatches=config.evaluation.microbatches,
            checkpoint_every=config.checkpoint.every_steps,
            needed=options.replicas or (1,) * config.num_stages,
        )
        log = EventLog(options.run_dir / "trainer" / "events.jsonl")
        self.process = Process(settings, self._act, log)

    async def run(self, switch: StopSwitch, on_published: JoinLine) -> str:
        """Until the core stops; the reason. Raises RunError when it stops with an error."""
        if self._options.resume is not None:
            self._offer(self._options.resume)
        await self.links.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                loops = [tasks.create_task(self._publish_again_and_again(on_published))]
                for stage in range(self.config.num_stages):
                    loops.append(tasks.create_task(self._watch(stage)))
                self.process.feed(Started())
                with switch.calls(lambda reason: self.process.feed(StopRequested(reason))):
                    stop = await self.process.stopped
                for task in loops:
                    task.cancel()
        finally:
            await self._close()
        if stop.error:
            raise RunError(stop.reason)
        return stop.reason

    async def _close(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.links.flush(FLUSH_S)
        await self.links.close()
        await self.network.directory.withdraw()
        self.process.close()

    # ------------------------------------------------------------------ acting

    def _act(self, instruction: Instruction) -> None:
        match instruction:
            case Send(to, message, payload):
                self.links.send(to, message, self._tensors(payload))
            case SaveCheckpoint():
                self._start(self._save(instruction))
            case ReportStep() | ReportEvaluation() | ReportPeer() | ReportWaiting():
                self._report(instruction)
            case _:
                raise AssertionError(f"a trainer cannot {instruction}")

    def _tensors(self, payload: Payload | None) -> Sequence[torch.Tensor]:
        match payload:
            case None:
                return ()
            case Batch(microbatch):
                inputs, targets = self.data.microbatch(microbatch)
                return torch.from_numpy(inputs), torch.from_numpy(targets)
        raise AssertionError(f"a trainer has no {payload}")

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """A background task whose failure ends the process."""
        task = self._loop.create_task(coroutine)
        self._background.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._background.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self.process.crash(error)

        task.add_done_callback(done)

    # ------------------------------------------------------------------ receiving

    def _receive(self, sender: PeerId, message: Message, tensors: Sequence[torch.Tensor]) -> None:
        match message:
            case GetState():
                self._shelf.answer(sender, message, self.links.send)
            case StateChunk():
                self._fetches.chunk_arrived(sender, message, tensors)
            case NoState():
                self._fetches.refused(sender, message, "does not have it")
            case _:
                self.process.feed(Received(sender, message))

    def _lost(self, peer: PeerId, reason: str) -> None:
        self._fetches.donor_lost(peer, reason)
        self.process.feed(PeerLost(peer, reason))

    def _send_failed(self, to: PeerId, message: Message) -> None:
        if isinstance(message, GetState):
            self._fetches.refused(to, message, "cannot be reached")
        else:
            self.process.feed(SendFailed(to, message))

    # ------------------------------------------------------------------ checkpoints

    def _offer(self, checkpoint: Checkpoint) -> None:
        """Be the donor of a checkpoint's states."""
        for stage in range(self.config.num_stages):
            data = checkpoint.read_stage(stage)
            snapshot = Snapshot(stage, checkpoint.version, data, digest_of(data))
            self._shelf.put(snapshot, keep=self.config.num_stages)

    async def _save(self, what: SaveCheckpoint) -> None:
        """Collect one snapshot a stage from its donor and write them. One at a time."""
        async with self._saving:
            try:
                files = [
                    await self._fetches.get(stage, what.version, (donor,))
                    for stage, donor in enumerate(what.donors)
                ]
                manifest = {
                    "run": self.config.run.name,
                    "epoch": self._epoch,
                    "version": what.version,
                    "seed": self.config.run.seed,
                    "config": self.config.model_dump(mode="json"),
                }
                write = partial(
                    write_checkpoint,
                    self._options.run_dir,
                    manifest,
                    list(zip(files, what.digests, strict=True)),
                    self.config.checkpoint.keep,
                )
                await asyncio.to_thread(write)
            except (SwarmError, OSError) as error:
                self.process.feed(CheckpointFailed(what.version, str(error)))
            else:
                self.process.feed(CheckpointSaved(what.version))

    # ------------------------------------------------------------------ the directory

    async def _publish_again_and_again(self, on_published: JoinLine) -> None:
        """Write the run's record, and again before it expires."""
        ttl_s = self.config.links.record_ttl_s
        told = False
        while True:
            addresses = self.network.daemon.addresses()
            record = RunRecord(
                run=self.config.run.name,
                trainer=self.network.me,
                epoch=self._epoch,
                config=self.config.model_dump(mode="json"),
                addresses=addresses,
            )
            await self.network.directory.publish_run(record, ttl_s)
            if not told:
                on_published(addresses)
                told = True
            await asyncio.sleep(ttl_s / 3)  # records live for a fixed time

    async def _watch(self, stage: int) -> None:
        def seen(stage: int, peers: tuple[PeerId, ...]) -> None:
            self.process.feed(PeersSeen(stage, peers))

        await watch_stage(
            self.network.directory,
            self.links,
            self.config.run.name,
            stage,
            frozenset({"joining", "serving"}),
            seen,
            self.config.links.refresh_s,
        )
