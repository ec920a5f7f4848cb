"""A thread for work whose end somebody else waits for, and which may never come.

An executor's threads are joined when the interpreter ends, so a device or a disk that hangs would
keep the process for ever.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

log = logging.getLogger("swarmrt.aside")

T = TypeVar("T")

CLOSE_S = 10.0  # for what is under way; a device that hangs would never be done


class Aside:
    """A thread that does one job after the other. `close` at the end, beside the loop."""

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have it done after what was handed over before."""
        future: Future[T] = Future()
        self._jobs.put((future, work))
        return future

    def close(self, patience_s: float = CLOSE_S) -> None:
        """Wait until all jobs are done. A thread that hangs is left behind."""
        self._jobs.put(None)
        end(self._thread, patience_s)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:  # noqa: BLE001 - carried to who waits
                    future.set_exception(error)
            del job, future, work  # what they hold is not kept until the next one comes


def end(thread: threading.Thread, patience_s: float) -> None:
    """Wait for the end of a thread that was told to end, and for no longer than that."""
    thread.join(patience_s)
    if thread.is_alive():
        log.error("the thread %s hangs; leaving without it", thread.name)
