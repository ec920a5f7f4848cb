"""The device of a seat, which its owner lends: the state leaves it for a while, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from swarmrt.runtime.computing.computations import Computations
from swarmrt.runtime.peer.jobs import Jobs
from swarmrt.runtime.process.process import Process
from swarmrt.scheduler.events import PauseRequested, ResumeRequested
from swarmrt.scheduler.instructions import FreeDevice
from swarmrt.scheduler.peer.core import PeerCore

Start = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class LentDevice:
    def __init__(
        self, process: Process, jobs: Jobs, computations: Computations, start: Start
    ) -> None:
        """`start` begins what ends with the process."""
        self._process, self._jobs, self._computations = process, jobs, computations
        self._start = start
        self._is_free = asyncio.Event()
        self.freed_bytes = 0  # by the last pause

    def pause(self, *, gently: bool = False) -> None:
        """Ask the core to let go of the device, at once or once the next version is made."""
        self._process.feed(PauseRequested(gently))

    async def until_free(self) -> None:
        """Wait until the device is given back, or the seat has ended."""
        free = asyncio.create_task(self._is_free.wait())
        waiting: set[asyncio.Future[Any]] = {free, self._process.stopped}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            free.cancel()

    async def resume(self) -> None:
        """Take the device again, and tell the core. Raises RunError when there is no room on
        it."""
        if self._core.seat.is_paused:
            await self.until_free()
            await self._jobs.computed(self._computations.take_device)
            self._is_free.clear()
        self._process.feed(ResumeRequested())

    def free(self, _: FreeDevice) -> None:
        """Carry out what the core has decided."""
        self._start(self._free())

    async def _free(self) -> None:
        await self._jobs.nothing_beside()
        self.freed_bytes = await self._jobs.computed(self._computations.leave_device)
        self._is_free.set()

    @property
    def is_paused(self) -> bool:
        """Return whether its owner has the device, or is about to have it."""
        return self._core.seat.is_paused

    @property
    def is_free(self) -> bool:
        """Return whether the device is given back, or the seat has ended."""
        return self._is_free.is_set() or self._process.stopped.done()

    @property
    def is_alone(self) -> bool:
        """Return whether no other replica of the stage was in the last round."""
        return self._core.seat.replicas == 1

    @property
    def _core(self) -> PeerCore:
        core = self._process.core
        assert isinstance(core, PeerCore)
        return core
