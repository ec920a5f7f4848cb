"""The host of a run's cores in one process: its links, its network, and the end of its work.

A peer's process holds seats, each with a core of its own in a `Shell`; a trainer's holds the
trainer. What is said to the process, and to none of its seats, is answered here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from swarmrt.config import RunConfig
from swarmrt.errors import AccessError, RunError
from swarmrt.ids import NO_SEAT, PeerId, Seats, seat_of
from swarmrt.messages import Beacon, DialBack, DialedBack, Facts, Message, Probe, Probed, Renewed
from swarmrt.runtime.directory.network import Network
from swarmrt.runtime.limits.quotas import Quotas, pace_of, payloads_of
from swarmrt.runtime.links.links import Links
from swarmrt.runtime.links.probing import Answers
from swarmrt.runtime.process.shell import Shell, Surroundings, Tensors
from swarmrt.runtime.process.stopping import StopSwitch
from swarmrt.runtime.process.vitals import watch_vitals
from swarmrt.runtime.reach.dialing_back import DialsBack
from swarmrt.scheduler.instructions import Stop
from swarmrt.wire.limits import Limits

log = logging.getLogger("swarmrt.host")

FLUSH_S = 5.0  # for the last messages of a process that leaves


class Host:
    """A process of a run. `add` what it holds, then let it `live`."""

    def __init__(
        self,
        config: RunConfig,
        network: Network,
        *,
        is_trainer: bool = False,
        num_seats: int = 1,
        vitals: Path | None = None,
    ) -> None:
        """With `vitals`, the process's own are written there."""
        self._network = network
        self._door = door = network.door(config, is_trainer=is_trainer)
        limits = Limits.of(config.links.max_message_bytes, payloads_of(config))
        pace = pace_of(config.batch.microbatches, num_seats)
        carriers = network.carriers(config.links.link)
        by_udp = config.links.beacons == "udp"
        self.links = Links(
            carriers,
            door,
            config.links.max_message_bytes,
            on_message=self._receive,
            on_lost=self._lost,
            on_send_failed=self._send_failed,
            faults=network.faults,
            beacons=network.beacons(self._beacon_came, door.num_seats) if by_udp else None,
            streams=config.links.streams,
            before_gathered=self._flush_logs,
            quotas=Quotas(limits, config.links.streams, pace, door=door, refused=network.refused),
            reach=network.reach,
            uplink=network.uplink,
            downlink=network.downlink,
            me=network.me,
        )
        self.around = Surroundings(config, network, door, self.links)
        self._answers = Answers()
        direct = next((carrier for carrier in carriers if carrier.name == "direct"), None)
        self._dials_back = DialsBack(direct, self.links.send)
        self._vitals = vitals
        self._shells: list[Shell] = []
        self._duties: dict[Shell, list[asyncio.Task[None]]] = {}  # of each, while it lives
        self._tasks: asyncio.TaskGroup | None = None  # while they live
        self._changed = asyncio.Event()  # there is another shell
        self._ends_with: RunError | None = None  # once it has to leave

    def add(self, shell: Shell) -> None:
        """Hold a seat's shell, or the trainer's, which has none."""
        self._shells.append(shell)
        if shell.seat != NO_SEAT:
            self.links.seat(shell.seat, shell.receive, shell.send_failed)
        if self._tasks is not None:
            self._begin(shell, self._tasks)
            self._changed.set()

    def _begin(self, shell: Shell, tasks: asyncio.TaskGroup) -> None:
        self._duties[shell] = [tasks.create_task(duty) for duty in shell.duties()]
        shell.begin()

    async def let_go(self, shell: Shell) -> None:
        """Hold a shell no more whose core has stopped, while the others go on."""
        self._shells.remove(shell)
        for duty in self._duties.pop(shell):
            duty.cancel()
        await shell.wind_up()
        self.links.unseat(shell.seat)
        await shell.close()

    async def live(
        self,
        switch: StopSwitch,
        duties: Sequence[Coroutine[Any, Any, None]] = (),
        entering: Coroutine[Any, Any, None] | None = None,
    ) -> str:
        """Run the cores until all of them stop, with these endless duties beside them; the reason.

        Before that comes `entering`, if there is something to be done first. When one stops with an
        error, the others are asked to leave.

        Raises RunError when one stops with an error, and whatever a duty raises.
        """
        try:
            await self.links.start()
            if entering is not None:
                await entering
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(duty) for duty in duties]
                running.append(tasks.create_task(self._keep_network()))
                if self._vitals is not None:
                    watch = watch_vitals(self._vitals, self._network.refused)
                    running.append(tasks.create_task(watch))
                self._tasks = tasks
                for shell in self._shells:
                    self._begin(shell, tasks)
                with switch.calls(self._ask_to_stop):
                    stops = await self._stopped()
                self._tasks = None
                for task in (*running, *(task for own in self._duties.values() for task in own)):
                    task.cancel()
            if self._ends_with is not None:
                raise self._ends_with
            if any(stop.error for stop in stops.values()):
                why = [shell.explain(stop) for shell, stop in stops.items() if stop.error]
                raise RunError("; ".join(dict.fromkeys(why)))
        except Exception as error:
            for shell in self._shells:
                shell.take_leave(error)
            raise
        finally:
            for duty in duties:
                duty.close()  # one that was never begun
            await self._close()
        return "; ".join(dict.fromkeys(stop.reason for stop in stops.values()))

    async def _stopped(self) -> dict[Shell, Stop]:
        """Wait until all cores have stopped. Raises whatever ends one otherwise."""
        stops: dict[Shell, Stop] = {}
        while waiting := {s.process.stopped: s for s in self._shells if s not in stops}:
            changed: asyncio.Future[Any] = asyncio.ensure_future(self._changed.wait())
            done, _ = await asyncio.wait({*waiting, changed}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            self._changed.clear()
            for future, shell in waiting.items():
                if future not in done:
                    continue
                stop = stops[shell] = future.result()
                if stop.error and len(waiting) > 1:
                    log.error("%s; the other seats of this process leave as well", stop.reason)
                    self._ask_to_stop(stop.reason)
                self.has_stopped(shell)
        return {shell: stop for shell, stop in stops.items() if shell in self._shells}

    def has_stopped(self, shell: Shell) -> None:
        """Take note that a core has stopped. Those that are left go on."""

    def _ask_to_stop(self, reason: str) -> None:
        for shell in self._shells:
            shell.ask_to_stop(reason)

    async def _keep_network(self) -> None:
        """Keep the daemon up. When it is gone for good, leave as if asked to: over direct links
        others take over first."""
        try:
            await self._network.keep_up(partial(self.links.all_known, "libp2p"))
        except RunError as error:
            self._ends_with = error
            log.error("%s; this process leaves", error)
            self._ask_to_stop(str(error))

    async def _close(self) -> None:
        for shell in self._shells:
            await shell.wind_up()
            if shell.process.stopped.done():
                shell.process.stopped.exception()  # where several have one, the first is told
        await self.links.flush(FLUSH_S)
        await self.links.close()
        await self._network.directory.withdraw()
        for shell in self._shells:
            await shell.close()

    def _flush_logs(self) -> None:
        for shell in self._shells:
            shell.flush_log()

    # ------------------------------------------------------------------ what is said to the process

    def _beacon_came(self, sender: PeerId, message: Message, tensors: Tensors) -> None:
        """Take a beacon that came by UDP, and so past the links: the word of the seat that it
        names."""
        assert isinstance(message, Beacon)
        if self._door.may_say(sender, Beacon, Seats(message.stage, NO_SEAT)):
            self._receive(seat_of(sender, message.stage), message, tensors)

    def _receive(self, sender: PeerId, message: Message, tensors: Tensors) -> None:
        match message:
            case Probe():
                self._answers.answer(sender, message, tensors, self.links.send)
            case Renewed():
                self._renewed(sender, message)
            case DialBack():
                host = self.links.host_of(sender)
                self._shells[0].start(self._dials_back.answer(sender, message, host))
            case Probed() | DialedBack() | Facts():
                log.debug("%s answers a question that nobody asked", sender)
            case _:
                self.said(sender, message, tensors)

    def said(self, sender: PeerId, message: Message, tensors: Tensors) -> None:
        """Take what else is said to the process: it is the trainer's, where that is here."""
        for shell in self._shells:
            if shell.seat == NO_SEAT:
                shell.receive(sender, message, tensors)

    def _renewed(self, sender: PeerId, message: Renewed) -> None:
        try:
            self._door.greet(sender, message.membership)
        except AccessError as error:
            log.warning("%s shows a membership that is none: %s", sender, error)

    def _lost(self, peer: PeerId, reason: str) -> None:
        for shell in self._shells:
            shell.lost(peer, reason)

    def _send_failed(self, to: PeerId, message: Message) -> None:
        """Take note of what the process could not say; whoever asked it is gone."""
        for shell in self._shells:
            if shell.seat == NO_SEAT and not isinstance(message, (Probed, DialedBack, Facts)):
                shell.send_failed(to, message)
