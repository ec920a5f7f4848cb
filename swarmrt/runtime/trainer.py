"""The trainer: the TrainerCore with real data, links, a directory and checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from swarmrt.config import RunConfig
from swarmrt.data import Data
from swarmrt.errors import SwarmError, UsageError
from swarmrt.ids import PeerId
from swarmrt.runtime.address_book import AddressBook
from swarmrt.runtime.checkpoint import (
    Checkpoint,
    checkpoint_of,
    read_epoch,
    write_checkpoint,
    write_epoch,
)
from swarmrt.runtime.directory import RunRecord
from swarmrt.runtime.failpoints import Failpoints
from swarmrt.runtime.faults import LinkFaults
from swarmrt.runtime.network import LOOPBACK, Network, open_network, watch_stage
from swarmrt.runtime.place import Place
from swarmrt.runtime.shell import Shell
from swarmrt.runtime.snapshot import Snapshot, digest_of
from swarmrt.runtime.stopping import StopSwitch
from swarmrt.scheduler.events import (
    CheckpointFailed,
    CheckpointSaved,
    PeersSeen,
    Started,
)
from swarmrt.scheduler.instructions import (
    Batch,
    Instruction,
    OfferCheckpoint,
    Payload,
    RaiseEpoch,
    Report,
    SaveCheckpoint,
    Send,
)
from swarmrt.scheduler.run import TrainerSettings

MAX_STAGE_BYTES = 64 << 30  # of one stage's snapshot; memory grows only with what has come
JoinLine = Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class TrainOptions:
    """What `swarmrt train` was asked for, beside the run's configuration."""

    run_dir: Path
    join: tuple[str, ...] = ()
    place: Place = LOOPBACK
    identity: Path | None = None
    replicas: tuple[int, ...] | None = None  # to wait for, by stage; one each by default
    resume: bool = False  # go on from what the peers hold, or from the checkpoint
    checkpoint: Checkpoint | None = None  # that a resumed run starts from, if there is one
    failpoints: Failpoints = field(default_factory=Failpoints)
    faults: LinkFaults | None = None
    wait: bool = False  # for the directory
    say: Callable[[str], None] = lambda text: None


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
    book = AddressBook(options.run_dir)
    async with open_network(
        options.join,
        options.place,
        identity,
        options.faults,
        remembered=book.addresses if options.resume else (),
        waiting=options.say if options.wait else None,
    ) as network:
        if not options.place.is_loopback:
            options.say(network.describe())
            book.keep_ports(options.place.ports)
        published = await network.directory.find_run(config.run.name)
        if published is not None and published.trainer != network.me:
            raise UsageError(
                f"a run named {config.run.name!r} is already published by {published.trainer}; "
                "choose another run.name, or wait until its record has expired"
            )
        epoch = 1 + max(
            options.checkpoint.manifest.epoch if options.checkpoint else 0,
            published.epoch if published else 0,
            read_epoch(options.run_dir),
        )
        options.failpoints.at("trainer.epoch.before_write")
        write_epoch(options.run_dir, epoch)
        options.failpoints.at("trainer.epoch.after_write")
        trainer = Trainer(config, data, network, epoch, options, report, book)
        return await trainer.run(switch, on_published)


class Trainer(Shell):
    """A shell with data and checkpoints."""

    def __init__(
        self,
        config: RunConfig,
        data: Data,
        network: Network,
        epoch: int,
        options: TrainOptions,
        report: Callable[[Report], None],
        book: AddressBook,
    ) -> None:
        start = options.checkpoint.version if options.checkpoint else 0
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
            start_digests=options.checkpoint.parameter_digests if options.checkpoint else (),
            record_ttl_s=config.links.record_ttl_s,
            resume=options.resume,
            staleness=config.optimizer.staleness,
        )
        log = options.run_dir / "trainer" / "events.jsonl"
        super().__init__(config, network, settings, log, options.failpoints)
        self.data = data
        self._options, self._epoch, self._report = options, epoch, report
        self._saving = asyncio.Lock()
        self._publication = asyncio.Event()
        network.relays.on_change(self._publication.set)
        self._book = book
        if options.checkpoint is not None:
            self._offer(options.checkpoint)

    async def run(self, switch: StopSwitch, on_published: JoinLine) -> str:
        """Until the core stops; the reason. Raises RunError when it stops with an error."""
        duties = [self._publish_again_and_again(on_published)]
        duties += [self._watch(stage) for stage in range(self.config.num_stages)]
        return await self.live(switch, Started(), duties)

    # ------------------------------------------------------------------ acting

    def act(self, instruction: Instruction) -> None:
        match instruction:
            case Send(to, message, payload):
                self.links.send(to, message, self._tensors(payload))
            case SaveCheckpoint():
                self.start(self._save(instruction))
            case RaiseEpoch(epoch):
                self._epoch = epoch
                self.failpoints.at("trainer.epoch.before_write")
                write_epoch(self._options.run_dir, epoch)
                self.failpoints.at("trainer.epoch.after_write")
                self._publication.set()
            case OfferCheckpoint(version):
                self._offer(checkpoint_of(self._options.run_dir, version))
            case Report():
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

    # ------------------------------------------------------------------ checkpoints

    def _offer(self, checkpoint: Checkpoint) -> None:
        """Be the donor of a checkpoint's states."""
        for stage in range(self.config.num_stages):
            data = checkpoint.read_stage(stage)
            snapshot = Snapshot(stage, checkpoint.version, data, digest_of(data))
            self.shelf.put(snapshot, keep=self.config.num_stages)

    async def _save(self, what: SaveCheckpoint) -> None:
        """Collect one snapshot a stage from its donor and write them. One at a time."""
        async with self._saving:
            try:
                snapshots = [
                    await self.fetches.get(stage, what.version, donors, MAX_STAGE_BYTES)
                    for stage, donors in enumerate(what.donors)
                ]
                manifest = {
                    "run": self.config.run.name,
                    "epoch": what.epoch,
                    "version": what.version,
                    "seed": self.config.run.seed,
                    "config": self.config.model_dump(mode="json"),
                }
                write = partial(
                    write_checkpoint,
                    self._options.run_dir,
                    manifest,
                    [(s.data, d) for s, d in zip(snapshots, what.digests, strict=True)],
                    self.config.checkpoint.keep,
                    self.failpoints.at,
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
            self._publication.clear()
            addresses = self.network.daemon.addresses()
            record = RunRecord(
                run=self.config.run.name,
                trainer=self.network.me,
                epoch=self._epoch,
                config=self.config.model_dump(mode="json"),
                addresses=addresses,
                direct=self.links.addresses("direct"),
            )
            await self.network.directory.publish_run(record, ttl_s)
            if not told:
                on_published(addresses)
                told = True
            try:
                async with asyncio.timeout(ttl_s / 3):
                    await self._publication.wait()
            except TimeoutError:
                continue  # time to refresh the record

    async def _watch(self, stage: int) -> None:
        def seen(stage: int, peers: tuple[PeerId, ...]) -> None:
            for peer in peers:
                self._book.keep(peer, self.links.known_addresses(peer, "libp2p"))
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
