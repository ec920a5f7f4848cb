"""The state of a peer's stage: it is loaded from others, and copied for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from swarmrt.errors import SwarmError
from swarmrt.messages import Unable
from swarmrt.model.layout import Layout
from swarmrt.runtime.computing.computations import Computations, Copied
from swarmrt.runtime.peer.jobs import Jobs
from swarmrt.runtime.process.process import Process
from swarmrt.runtime.state.copying import keep_copy
from swarmrt.runtime.state.fetching import Fetches, Wanted
from swarmrt.runtime.state.offering import Shelf
from swarmrt.scheduler.events import StateUnavailable, Stepped
from swarmrt.scheduler.instructions import LoadState, StopLoading

log = logging.getLogger("swarmrt.peer")

Start = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Loading:
    def __init__(
        self,
        stage_index: int,
        layout: Layout,
        process: Process,
        jobs: Jobs,
        computations: Computations,
        fetches: Fetches,
        shelf: Shelf,
        start: Start,
        tell_trainer: Callable[[Unable], None],
    ) -> None:
        """`start` begins what ends with the process."""
        self._stage_index, self._process, self._jobs = stage_index, process, jobs
        self._computations, self._fetches, self._shelf = computations, fetches, shelf
        self._start, self._tell_trainer = start, tell_trainer
        self._layout = layout
        self._task: asyncio.Task[None] | None = None

    def load(self, what: LoadState) -> None:
        """Get the state from donors, or build it at version 0, and tell the core."""
        if self._task is not None:
            self._task.cancel()
        self._task = self._start(self._load(what))

    def stop(self, _: StopLoading) -> None:
        if self._task is not None:
            self._task.cancel()
        self._fetches.let_go()

    async def _load(self, what: LoadState) -> None:
        version, donors = what.version, what.donors
        self._fetches.turn_to((self._stage_index, version))
        try:
            if donors or version:
                wanted = Wanted(self._layout, version, what.digest)
                snapshot = await self._fetches.get(wanted, donors)
                self._shelf.put(snapshot)
                work = self._computations.load(snapshot)
            else:
                work = self._computations.build()
            event = await self._jobs.computed(work)
        except SwarmError as error:
            why = f"version {version} could not be loaded: {error}"
            log.warning("%s", why)
            self._tell_trainer(Unable(self._stage_index, why))
            event = StateUnavailable(version, str(error))
        self._process.feed(event)

    # ------------------------------------------------------------------ for others

    def made(self, outcome: tuple[Stepped, Copied | None]) -> None:
        """Keep the snapshot of a version that is made, if one was asked for, and tell the core."""
        event, copied = outcome
        if copied is not None:
            self._shelf.promise(self._stage_index, event.version)
            self._keep(event.version, copied)
        self._process.feed(event)

    def copy_again(self, version: int) -> None:
        """Copy the state once more, if it is wanted and was let go, or was never asked for."""
        stage = self._stage_index
        if self._task is not None and not self._task.done():
            return
        if version != self._computations.stage.version or self._shelf.has(stage, version):
            return
        self._shelf.promise(stage, version)

        def copying(outcome: tuple[int, Copied]) -> None:
            its_version, copied = outcome
            if its_version == version:
                self._keep(version, copied)
            else:
                self._shelf.break_promise(stage, version)  # an update was faster

        self._jobs.compute(self._computations.snapshot, copying)

    def _keep(self, version: int, copied: Copied) -> None:
        self._start(keep_copy(self._shelf, self._stage_index, version, copied))
