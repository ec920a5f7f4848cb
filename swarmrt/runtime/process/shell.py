"""The shell that a peer and a trainer have around their cores: links, state transfer, duties."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from swarmrt.config import RunConfig
from swarmrt.errors import AccessError, RunError
from swarmrt.ids import PeerId
from swarmrt.messages import (
    DialBack,
    DialedBack,
    GetState,
    Message,
    NoState,
    Probe,
    Probed,
    Renewed,
    StateChunk,
)
from swarmrt.runtime.access.door import GuardedDoor
from swarmrt.runtime.directory.network import Network
from swarmrt.runtime.faults.failpoints import Failpoints
from swarmrt.runtime.limits.quotas import Quotas, pace_of, payloads_of
from swarmrt.runtime.links.links import Links
from swarmrt.runtime.links.probing import Answers
from swarmrt.runtime.peer.causes import cause_of
from swarmrt.runtime.process.event_log import EventLog
from swarmrt.runtime.process.process import Process
from swarmrt.runtime.process.stopping import StopSwitch
from swarmrt.runtime.process.vitals import watch_vitals
from swarmrt.runtime.reach.dialing_back import DialsBack
from swarmrt.runtime.state.fetching import Fetches
from swarmrt.runtime.state.offering import Shelf
from swarmrt.scheduler.events import PeerLost, Received, SendFailed, Started, StopRequested
from swarmrt.scheduler.instructions import Instruction, Stop
from swarmrt.scheduler.settings import PeerSettings, TrainerSettings
from swarmrt.wire.limits import Limits

log = logging.getLogger("swarmrt.shell")

FLUSH_S = 5.0  # for the last messages of a process that leaves
ROOM_S = 10.0  # for a full disk to take the end of its log
LOOK_S = 0.2  # between two tries of that
TIDY_S = 10.0  # between two looks at what nobody fetches

Tensors = Sequence[torch.Tensor]


class Shell(ABC):
    """Feed, take instructions, act. Subclasses say how."""

    def __init__(
        self,
        config: RunConfig,
        network: Network,
        door: GuardedDoor,
        settings: PeerSettings | TrainerSettings,
        log: Path | None,
        failpoints: Failpoints,
    ) -> None:
        self.config, self.network, self.door = config, network, door
        self.loop = asyncio.get_running_loop()
        self._event_log = event_log = EventLog(log, waits=lambda: self.links.is_gathering)
        limits = Limits.of(config.links.max_message_bytes, payloads_of(config))
        pace = pace_of(config.batch.microbatches)
        carriers = network.carriers(config.links.link)
        self.links = Links(
            carriers,
            door,
            config.links.max_message_bytes,
            on_message=self._receive,
            on_lost=self._lost,
            on_send_failed=self._send_failed,
            faults=network.faults,
            beacons=network.beacons(self._beacon_came) if config.links.beacons == "udp" else None,
            streams=config.links.streams,
            before_gathered=event_log.flush,
            quotas=Quotas(limits, config.links.streams, pace, door=door, refused=network.refused),
            reach=network.reach,
            uplink=network.uplink,
        )
        self.fetches = Fetches(self.links.send, self.links.came_state_bytes, event_log.write)
        self.shelf = Shelf()
        self.answers = Answers()
        self.unfit: Counter[str] = Counter()  # messages whose tensors did not fit, by kind
        direct = next((carrier for carrier in carriers if carrier.name == "direct"), None)
        self.dials_back = DialsBack(direct, self.links.send)
        self.failpoints = failpoints
        self.process = Process(settings, self.act, event_log, failpoints)
        self._vitals = log.with_name("vitals.jsonl") if log is not None else None
        self._background: set[asyncio.Task[None]] = set()
        self._ends_with: RunError | None = None  # once it has to leave

    @abstractmethod
    def act(self, instruction: Instruction) -> None:
        """Carry out one instruction; what comes of it is fed as an event."""

    def fits(self, message: Message, tensors: Tensors) -> bool:
        """Return whether the tensors are what such a message has, by default none; False drops
        it."""
        return not tensors

    async def live(
        self,
        switch: StopSwitch,
        started: Started,
        duties: Sequence[Coroutine[Any, Any, None]],
        entering: Coroutine[Any, Any, None] | None = None,
    ) -> str:
        """Run the core until it stops, with these endless duties beside it; the reason.

        Before that comes `entering`, if there is something to be done first.

        Raises RunError when it stops with an error, and whatever a duty raises.
        """
        try:
            await self.links.start()
            if entering is not None:
                await entering
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(duty) for duty in duties]
                running.append(tasks.create_task(self._keep_network()))
                running.append(tasks.create_task(self._tidy_shelf()))
                if self._vitals is not None:
                    running.append(
                        tasks.create_task(watch_vitals(self._vitals, self.network.refused))
                    )
                self.process.feed(started)
                with switch.calls(lambda reason: self.process.feed(StopRequested(reason))):
                    stop = await self.process.stopped
                for task in running:
                    task.cancel()
            if self._ends_with is not None:
                raise self._ends_with
            if stop.error:
                raise RunError(self.explain(stop))
        except Exception as error:
            self.take_leave(error)
            raise
        finally:
            for duty in duties:
                duty.close()  # one that was never begun
            await self._close()
        return stop.reason

    def take_leave(self, error: Exception) -> None:
        """Tell whoever relies on this process that it ends with an error."""
        log.debug("this process ends: %s", cause_of(error))

    def explain(self, stop: Stop) -> str:
        """Return why the core has stopped, for people."""
        return stop.reason

    async def _keep_network(self) -> None:
        """Keep the daemon up. When it is gone for good, leave as if asked to: over direct links
        others take over first."""
        try:
            await self.network.keep_up(partial(self.links.all_known, "libp2p"))
        except RunError as error:
            self._ends_with = error
            log.error("%s; this process leaves", error)
            self.process.feed(StopRequested(str(error)))

    async def _tidy_shelf(self) -> None:
        """Let go of snapshots that nobody fetches, again and again."""
        while True:
            await asyncio.sleep(TIDY_S)
            self.shelf.tidy()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Background work whose failure ends the process."""
        task = self.loop.create_task(coroutine)
        self._background.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._background.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self.process.crash(error)

        task.add_done_callback(done)
        return task

    async def _close(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.links.flush(FLUSH_S)
        await self.links.close()
        await self.network.directory.withdraw()
        await self._wait_for_room()
        self.process.close()

    async def _wait_for_room(self) -> None:
        """Give a full disk a little time to take the end of the log."""
        end = self.loop.time() + ROOM_S
        while self._event_log.lacks_room() and self.loop.time() < end:
            await asyncio.sleep(LOOK_S)

    def _beacon_came(self, sender: PeerId, message: Message, tensors: Tensors) -> None:
        """Take a beacon that came by UDP, and so past the links."""
        if self.door.may_say(sender, type(message)):
            self._receive(sender, message, tensors)

    def _receive(self, sender: PeerId, message: Message, tensors: Tensors) -> None:
        match message:
            case GetState():
                self.shelf.answer(sender, message, self.links.send)
            case StateChunk():
                self.fetches.chunk_arrived(sender, message, tensors)
            case NoState():
                self.fetches.refused(sender, message)
            case Probe():
                self.answers.answer(sender, message, tensors, self.links.send)
            case Renewed():
                self._renewed(sender, message)
            case DialBack():
                host = self.links.host_of(sender)
                self.start(self.dials_back.answer(sender, message, host))
            case Probed() | DialedBack():
                log.debug("%s answers a question that nobody asked", sender)
            case _ if self.fits(message, tensors):
                self.process.feed(Received(sender, message), tensors)
            case _:
                self._unfit(sender, message)

    def _unfit(self, sender: PeerId, message: Message) -> None:
        """Counted, and told once for each kind, so that nobody fills a log with it."""
        name = type(message).__name__
        self.unfit[name] += 1
        if self.unfit[name] == 1:
            log.warning("ignoring a %s of %s: its tensors do not fit", name, sender)

    def _renewed(self, sender: PeerId, message: Renewed) -> None:
        try:
            self.door.greet(sender, message.membership)
        except AccessError as error:
            log.warning("%s shows a membership that is none: %s", sender, error)

    def _lost(self, peer: PeerId, reason: str) -> None:
        self.fetches.donor_lost(peer, reason)
        self.process.feed(PeerLost(peer, reason))

    def _send_failed(self, to: PeerId, message: Message) -> None:
        if isinstance(message, GetState):
            self.fetches.donor_lost(to, "cannot be reached")
        elif not isinstance(message, (Probed, DialedBack)):  # whoever asked is gone
            self.process.feed(SendFailed(to, message))
