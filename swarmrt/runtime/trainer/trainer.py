"""The trainer: the TrainerCore with real data, links, a directory and checkpoints."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from swarmrt.config import RunConfig
from swarmrt.data import Data
from swarmrt.errors import CheckpointError, RunError, UsageError
from swarmrt.ids import NO_SEAT, PeerId, peer_of, seat_of, stage_of
from swarmrt.messages import Barred, Beacon, Ending, GetFacts, Knock, Message, NotInvited, Unable
from swarmrt.run_identity import fingerprint
from swarmrt.runtime.access.reception import AccessFile, Reception
from swarmrt.runtime.checkpoints.checkpoint import Checkpoint, checkpoint_of
from swarmrt.runtime.checkpoints.disk import Disk, DiskHangs
from swarmrt.runtime.checkpoints.epochs import read_born, read_epoch, write_epoch
from swarmrt.runtime.checkpoints.saving import Saves
from swarmrt.runtime.directory.keeping import keep_written
from swarmrt.runtime.directory.looking_up import Reading, published_run, watch_stage
from swarmrt.runtime.directory.network import LOOPBACK, open_network
from swarmrt.runtime.faults.failpoints import Failpoints
from swarmrt.runtime.faults.faults import LinkFaults
from swarmrt.runtime.observing.telling_facts import FactsTold
from swarmrt.runtime.peer.updates import state_gradients, turns_of
from swarmrt.runtime.process.host import Host
from swarmrt.runtime.process.shell import Shell, Surroundings, Tensors
from swarmrt.runtime.process.stopping import StopSwitch
from swarmrt.runtime.process.vitals import VITALS
from swarmrt.runtime.reach.address_book import AddressBook
from swarmrt.runtime.reach.place import Place
from swarmrt.runtime.state.snapshot import Snapshot, as_written_now, digest_of
from swarmrt.runtime.trainer.feeding import Feeding
from swarmrt.runtime.trainer.steps_told import steps_told
from swarmrt.runtime.trainer.unlike import read_unlike, write_unlike
from swarmrt.scheduler.events import (
    Expelled,
    MoveRequested,
    PeersSeen,
)
from swarmrt.scheduler.instructions import (
    Batch,
    Expel,
    Instruction,
    KeepUnlike,
    OfferCheckpoint,
    Payload,
    RaiseEpoch,
    Report,
    SaveCheckpoint,
    Send,
    Stop,
)
from swarmrt.scheduler.settings import TrainerSettings
from swarmrt.scheduler.timing.intervals import renew_s
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.trust.checking import CLOCK_SLACK_S
from swarmrt.trust.papers import OwnersPapers
from swarmrt.trust.signing import Signer

log = logging.getLogger("swarmrt.trainer")

LOOK_S = 5.0  # between two looks for a later trainer, at the word of peers
AGAIN = "; train it again with --resume, which says whether an older checkpoint is whole"
JoinLine = Callable[[Sequence[str]], None]


@dataclass(frozen=True)
class TrainOptions:
    """The options of `swarmrt train`, beside the run's configuration."""

    run_dir: Path
    signer: Signer  # in the name of the run's owner
    join: tuple[str, ...] = ()
    place: Place = LOOPBACK
    identity: Path | None = None
    replicas: tuple[int, ...] | None = None  # to wait for, by stage; one each by default
    resume: bool = False  # go on from what the peers hold, or from the checkpoint
    checkpoint: Checkpoint | None = None  # that a resumed run starts from, if there is one
    failpoints: Failpoints = field(default_factory=Failpoints)
    faults: LinkFaults | None = None
    link_bytes_per_s: float | None = None  # that all links may send together
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
    papers = OwnersPapers(options.signer, is_trainer=True)
    book = AddressBook(options.run_dir)
    async with open_network(
        options.join,
        options.place,
        identity,
        options.faults,
        papers,
        private=config.run.access == "invited",
        remembered=book.addresses if options.resume else (),
        waiting=options.say if options.wait else None,
        link_bytes_per_s=options.link_bytes_per_s,
        with_links=True,
    ) as network:
        if not options.place.is_loopback:
            options.say(network.describe())
            book.keep_ports(options.place.ports)
        published = await network.while_up(published_run(network.directory, papers.run))
        if published is not None and published.trainer != network.me:
            raise UsageError(
                f"your run {papers.run} is already published by {published.trainer}; "
                "choose another run.name, or wait a minute until its record has expired"
            )
        epoch = 1 + max(
            options.checkpoint.manifest.epoch if options.checkpoint else 0,
            published.epoch if published and published.born == read_born(options.run_dir) else 0,
            read_epoch(options.run_dir),
        )
        options.failpoints.at("trainer.epoch.before_write")
        write_epoch(options.run_dir, epoch)
        options.failpoints.at("trainer.epoch.after_write")
        start = options.checkpoint.version if options.checkpoint else 0
        feeding = await Feeding.open(data, options.signer, start)
        host = Host(config, network, is_trainer=True, vitals=options.run_dir / "trainer" / VITALS)
        trainer = Trainer(host.around, feeding, epoch, options, report, book)
        host.add(trainer)
        return await host.live(switch, [trainer.keep_published(on_published)])


class Trainer(Shell):
    """A shell with data and checkpoints."""

    def __init__(
        self,
        around: Surroundings,
        feeding: Feeding,
        epoch: int,
        options: TrainOptions,
        report: Callable[[Report], None],
        book: AddressBook,
    ) -> None:
        config, network, door, _ = around
        settings = TrainerSettings.of(
            config,
            network.me,
            epoch,
            needed=options.replicas or (1,) * config.num_stages,
            start_version=options.checkpoint.version if options.checkpoint else 0,
            start_digests=options.checkpoint.parameter_digests if options.checkpoint else (),
            resume=options.resume,
            secret=secrets.token_hex(16),
            by_owners=_by_owners(config, options),
            state_gradients=state_gradients(config),
            fingerprint=fingerprint(config),
            told=steps_told(options.run_dir, config.batch.microbatches) if options.resume else (),
            turns=turns_of(config),
        )
        log = options.run_dir / "trainer" / "events.jsonl"
        super().__init__(around, NO_SEAT, settings, log, options.failpoints)
        self._feeding, self._options, self._epoch, self._report = feeding, options, epoch, report
        self._disk = Disk()
        self._saves = Saves(config, options.run_dir, self.fetches, self._disk, self.failpoints.at)
        self._publication = asyncio.Event()
        self._reading = Reading(config.links.refresh_s)
        self._looked_at = -math.inf  # for a later trainer
        self._born = read_born(options.run_dir)
        access = AccessFile(options.run_dir)
        self._reception = Reception(config, options.signer, door, access, feeding.targets_key)
        network.relays.on_change(self._publication.set)
        self._book = book
        assert isinstance(self.process.core, TrainerCore)
        self._facts_told = FactsTold(self.process.core, lambda: self.process.now)
        if options.faults is not None:
            options.faults.on_move(lambda *what: self.process.feed(MoveRequested(*what)))
            options.faults.on_failpoint(options.failpoints.arm)
        if options.checkpoint is not None:
            self._offer(options.checkpoint)

    def duties(self) -> list[Coroutine[Any, Any, None]]:
        watches = [self._watch(stage) for stage in range(self.config.num_stages)]
        return [*super().duties(), *watches, self._reception.watch(self._turned_out)]

    # ------------------------------------------------------------------ who may come in

    def receive(self, sender: PeerId, message: Message, tensors: Tensors) -> None:
        if isinstance(message, Beacon) and message.epoch > self._epoch:
            self._look_for_newer()
        match message:
            case Knock():
                self.links.send(sender, self._reception.answer(sender, message))
            case GetFacts():
                self._facts_told.answer(sender, message, self.links.send)
            case Ending(reason):
                self.fetches.donor_lost(sender, f"has ended: {reason}")
                super().receive(sender, message, tensors)
            case Beacon(stage=stage) if stage != stage_of(sender):
                log.debug("%s beacons for stage %d", sender, stage)
            case Unable(stage=stage) if stage_of(sender) not in (stage, NO_SEAT):
                log.debug("%s speaks for stage %d", sender, stage)
            case _:
                super().receive(sender, message, tensors)

    def _look_for_newer(self) -> None:
        """Have the run's record looked at soon: a peer says that there is, or was, a later
        trainer, as anybody may."""
        now = self.loop.time()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._publication.set()

    def _turned_out(self, peer: PeerId, why: str) -> None:
        """Tell a peer that is no member any more why; it leaves by itself."""
        self.process.feed(Expelled(peer, why))
        self.links.send(peer, NotInvited(why))
        for member in self.links.peers() - {peer}:
            self.links.send(member, Barred((peer,)))

    # ------------------------------------------------------------------ acting

    def explain(self, stop: Stop) -> str:
        """Return why the run ends, and where in the data the microbatches lie that are at fault."""
        places = [f"{one} is {self._feeding.place_of(one)}" for one in stop.microbatches]
        return "; ".join([stop.reason, *places])

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
            case KeepUnlike(stages):
                write_unlike(self._options.run_dir, stages)
            case OfferCheckpoint(version):
                self._go_back_to(version)
            case Expel(seat, reason):
                self._reception.turn_out(peer_of(seat), reason)
                self._turned_out(peer_of(seat), reason)
            case Report():
                self._report(instruction)
            case _:
                raise AssertionError(f"a trainer cannot {instruction}")

    def _tensors(self, payload: Payload | None) -> Sequence[torch.Tensor]:
        match payload:
            case None:
                return ()
            case Batch(microbatch):
                return self._feeding.batch(microbatch)
        raise AssertionError(f"a trainer has no {payload}")

    # ------------------------------------------------------------------ checkpoints

    def _offer(self, checkpoint: Checkpoint) -> None:
        """Be the donor of a checkpoint's states, as soon as each is read once."""
        for stage in range(self.config.num_stages):
            self.shelf.promise(stage, checkpoint.version)
        self.start(self._read(checkpoint))

    def _go_back_to(self, version: int) -> None:
        try:
            self._offer(checkpoint_of(self._options.run_dir, version))
        except CheckpointError as error:
            raise RunError(f"{error}{AGAIN}") from None

    async def _read(self, checkpoint: Checkpoint) -> None:
        version = checkpoint.version

        def read(stage: int) -> Snapshot:
            data = as_written_now(stage, version, checkpoint.read_stage(stage))
            return Snapshot(stage, version, data, digest_of(data))

        for stage, file in enumerate(checkpoint.manifest.stages):
            try:
                snapshot = await self._disk.call(partial(read, stage), file.size_bytes)
            except CheckpointError as error:
                raise RunError(f"{error}{AGAIN}") from None
            except DiskHangs as error:
                raise RunError(f"{checkpoint.path}: cannot be read: {error.strerror}") from None
            self.shelf.offer(snapshot)

    async def _save(self, what: SaveCheckpoint) -> None:
        self.process.feed(await self._saves.save(what))

    # ------------------------------------------------------------------ the directory

    async def _end_if_not_newest(self) -> None:
        """Look at the run's record. Raises RunError when it is a later trainer's."""
        run = self._options.signer.run
        newest = await self.network.directory.find_run(run)
        if newest is not None and newest.age > (self._born, self._epoch):
            raise RunError(
                f"run {run} has been taken over by a later trainer, {newest.trainer} in epoch "
                f"{newest.epoch}, so this one, in epoch {self._epoch}, ends"
            )

    async def keep_published(self, on_published: JoinLine) -> None:
        """Write the run's record, and again before it expires, unless there is a later one."""
        ttl_s = self.config.links.record_ttl_s
        told = False

        async def publish() -> None:
            nonlocal told
            if told:
                await self._end_if_not_newest()
            addresses = self.network.daemon.addresses()
            signer, until = self._options.signer, time.time() + ttl_s + CLOCK_SLACK_S
            config = self.config.told_to_others().model_dump(mode="json")
            direct, what = self.links.addresses("direct"), (self.network.me, self._epoch, config)
            published = signer.published(*what, addresses, direct, until, self._born)
            ended = signer.published(*what, (), (), until, self._born)
            await self.network.directory.publish_run(signer.run, published, ended, ttl_s)
            if not told:
                on_published(addresses)
                told = True

        await keep_written(publish, self._publication, lambda: renew_s(ttl_s))

    async def _watch(self, stage: int) -> None:
        def seen(stage: int, peers: tuple[PeerId, ...]) -> None:
            for peer in peers:
                self._book.keep(peer, self.links.known_addresses(peer, "libp2p"))
            self.process.feed(PeersSeen(stage, tuple(seat_of(peer, stage) for peer in peers)))

        await watch_stage(
            self.network.directory,
            self.links,
            self._options.signer.run,
            stage,
            frozenset({"joining", "serving"}),
            seen,
            self._reading,
        )


def _by_owners(config: RunConfig, options: TrainOptions) -> tuple[int, ...]:
    """Return the stages where owners of parts update: as configured, or as was found out before."""
    if config.optimizer.applied_by == "owners":
        return tuple(range(config.num_stages))
    if config.averaging.is_on:
        return ()
    known = read_unlike(options.run_dir) if options.resume else ()
    return tuple(stage for stage in known if 0 <= stage < config.num_stages)
