"""The shell that a seat and the trainer have around their cores: messages, states, duties."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from swarmrt.config import RunConfig
from swarmrt.ids import PeerId
from swarmrt.messages import GetState, Message, NoState, StateChunk
from swarmrt.runtime.access.door import GuardedDoor
from swarmrt.runtime.directory.network import Network
from swarmrt.runtime.faults.failpoints import Failpoints
from swarmrt.runtime.links.links import Links
from swarmrt.runtime.links.moving import tell_what_moves
from swarmrt.runtime.peer.causes import cause_of
from swarmrt.runtime.process.event_log import EventLog
from swarmrt.runtime.process.process import Process
from swarmrt.runtime.state.fetching import Fetches
from swarmrt.runtime.state.offering import Shelf
from swarmrt.scheduler.events import PeerLost, Received, SendFailed, Started, StopRequested
from swarmrt.scheduler.instructions import Instruction, Stop
from swarmrt.scheduler.settings import AnySettings

log = logging.getLogger("swarmrt.shell")

ROOM_S = 10.0  # for a full disk to take the end of its log
LOOK_S = 0.2  # between two tries of that
TIDY_S = 10.0  # between two looks at what nobody fetches

Tensors = Sequence[torch.Tensor]


class Surroundings(NamedTuple):
    """The surroundings that the shells of a process share."""

    config: RunConfig
    network: Network
    door: GuardedDoor
    links: Links


class Shell(ABC):
    """Feed, take instructions, act. Subclasses say how."""

    def __init__(
        self,
        around: Surroundings,
        seat: int,
        settings: AnySettings,
        log: Path | None,
        failpoints: Failpoints,
    ) -> None:
        """`seat` is the stage of the process's seat, or NO_SEAT."""
        self.config, self.network, self.door, self.links = around
        self.seat, self.loop = seat, asyncio.get_running_loop()
        self._event_log = EventLog(log, waits=lambda: self.links.is_gathering)
        self.fetches = Fetches(self.send, self.links.came_state_bytes, self._event_log.write)
        self.shelf = Shelf()
        self.unfit: Counter[str] = Counter()  # messages whose tensors did not fit, by kind
        self.failpoints = failpoints
        self.process = Process(settings, self.act, self._event_log, failpoints)
        self._background: set[asyncio.Task[None]] = set()

    @abstractmethod
    def act(self, instruction: Instruction) -> None:
        """Carry out one instruction; what comes of it is fed as an event."""

    def fits(self, message: Message, tensors: Tensors) -> bool:
        """Return whether the tensors are what such a message has, by default none; False drops
        it."""
        return not tensors

    def send(self, to: PeerId, message: Message, tensors: Tensors = ()) -> None:
        """Send it as this seat's word."""
        self.links.send(to, message, tensors, of=self.seat)

    # ------------------------------------------------------------------ for the host

    def begin(self) -> None:
        """Begin, now that the process has its links."""
        self.process.feed(self.started())

    def started(self) -> Started:
        """Return the first event of the core."""
        return Started()

    def duties(self) -> list[Coroutine[Any, Any, None]]:
        """Return what is done beside the core until the process ends."""
        return [self._tidy_shelf(), tell_what_moves(self.links, self.process.feed)]

    def ask_to_stop(self, reason: str) -> None:
        self.process.feed(StopRequested(reason))

    def explain(self, stop: Stop) -> str:
        """Return why the core has stopped, for people."""
        return stop.reason

    def take_leave(self, error: Exception) -> None:
        """Tell whoever relies on this core that its process ends with an error."""
        log.debug("this process ends: %s", cause_of(error))

    def flush_log(self) -> None:
        self._event_log.flush()

    async def wind_up(self) -> None:
        """End what runs in the background."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def close(self) -> None:
        """Close the log. A full disk has a little time to take the end of it."""
        end = self.loop.time() + ROOM_S
        while self._event_log.lacks_room() and self.loop.time() < end:
            await asyncio.sleep(LOOK_S)
        self.process.close()

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

    # ------------------------------------------------------------------ what comes

    def receive(self, sender: PeerId, message: Message, tensors: Tensors) -> None:
        match message:
            case GetState():
                self.shelf.answer(sender, message, self.send)
            case StateChunk():
                self.fetches.chunk_arrived(sender, message, tensors)
            case NoState():
                self.fetches.refused(sender, message)
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

    def lost(self, peer: PeerId, reason: str) -> None:
        """Take note that there is no link to a process any more."""
        self.fetches.peer_lost(peer, reason)
        self.process.feed(PeerLost(peer, reason))

    def send_failed(self, to: PeerId, message: Message) -> None:
        if isinstance(message, GetState):
            self.fetches.donor_lost(to, "cannot be reached")
        else:
            self.process.feed(SendFailed(to, message))
