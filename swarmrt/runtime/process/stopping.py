"""Ctrl-C, SIGTERM and SIGHUP: drain first, leave at once when asked again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask a process to stop. SIGHUP, of a terminal that was closed, is none
    of them under `nohup`."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return numbers if is_ignored else (*numbers, signal.SIGHUP)


class StopSwitch:
    """Thrown by a signal or by a parent that is gone.

    While something handles stops (`calls`), the first two throws are passed on to it: the first
    means drain, the second means leave now. Otherwise, and from the third on, the task that was
    named at construction is cancelled, which closes everything on the way out.
    """

    def __init__(self, main: asyncio.Task[Any]) -> None:
        self._main = main
        self._handler: Callable[[str], None] | None = None
        self._throws = 0

    @property
    def thrown(self) -> bool:
        return self._throws > 0

    def throw(self, reason: str) -> None:
        self._throws += 1
        if self._handler is not None and self._throws <= 2:
            self._handler(reason)
        else:
            self._main.cancel(reason)

    @contextmanager
    def calls(self, handler: Callable[[str], None]) -> Iterator[None]:
        """Pass throws to this handler meanwhile."""
        self._handler = handler
        try:
            yield
        finally:
            self._handler = None

    def on_signals(self) -> None:
        """Throw it for the signals that stop this process."""
        loop = asyncio.get_running_loop()
        for number in stop_signals():
            name = signal.Signals(number).name
            loop.add_signal_handler(number, self.throw, f"{name} received")
