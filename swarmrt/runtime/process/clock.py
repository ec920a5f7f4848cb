"""Deadlines of a core on the event loop's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from swarmrt.scheduler.instructions import StartDeadline


class Deadlines:
    """Calls `passed(name)` at its time. A new deadline replaces the earlier one of its name."""

    def __init__(self, passed: Callable[[str], None]) -> None:
        self._passed = passed
        self._loop = asyncio.get_running_loop()
        self._handles: dict[str, asyncio.TimerHandle] = {}

    @property
    def now(self) -> float:
        """The time in seconds on a monotonic clock of this process."""
        return self._loop.time()

    def start(self, deadline: StartDeadline) -> None:
        earlier = self._handles.pop(deadline.name, None)
        if earlier is not None:
            earlier.cancel()
        self._handles[deadline.name] = self._loop.call_at(deadline.at, self._pass, deadline.name)

    def _pass(self, name: str) -> None:
        self._handles.pop(name, None)
        self._passed(name)

    def close(self) -> None:
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()
