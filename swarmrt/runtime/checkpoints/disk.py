"""Calls to a disk that may hang, as one over a network does: each has a deadline.

A call that hangs cannot be ended, only given up. As long as it hangs nothing else is tried: further
calls fail at once, so that they do not pile up behind it. When it comes to its end after all, the
disk is as good as before.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from swarmrt.runtime.process.worker import Outcome, Then, Worker

ANSWER_S = 60.0  # for a call that moves no more than a chunk
SLOWEST_BYTES_PER_S = 4e6  # of a disk that is worth its name: an old memory card


class DiskHangs(OSError):
    """A disk does not answer."""


@dataclass(eq=False)
class Call:
    then: Then
    patience_s: float
    timer: asyncio.TimerHandle | None = None
    is_given_up: bool = False


class Disk:
    """The thread on which calls are made, one after the other. Use it on the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._worker = Worker("disk")
        self._calls: set[Call] = set()  # that have not come back

    def run(
        self,
        work: Callable[[], Any],
        then: Then,
        size_bytes: int = 0,
        answer_s: float | None = None,
    ) -> None:
        """Do it on the thread, where it moves so many bytes; `then` is called once, on the loop,
        with what came of it, or with DiskHangs when nothing did in time."""
        if any(call.is_given_up for call in self._calls):
            then(Outcome(None, _hangs("still does not answer")))
            return
        least_s = ANSWER_S if answer_s is None else answer_s
        call = Call(then, least_s + size_bytes / SLOWEST_BYTES_PER_S)
        self._calls.add(call)
        within_s = sum(one.patience_s for one in self._calls)  # its turn comes after theirs
        call.timer = self._loop.call_later(within_s, self._give_up, call)
        self._worker.run(work, partial(self._came, call))

    async def call(
        self, work: Callable[[], Any], size_bytes: int = 0, answer_s: float | None = None
    ) -> Any:
        """Do it on the thread, and wait. Raises DiskHangs, and whatever it raises."""
        came: asyncio.Future[Outcome] = self._loop.create_future()

        def done(outcome: Outcome) -> None:
            if not came.cancelled():
                came.set_result(outcome)

        self.run(work, done, size_bytes, answer_s)
        result, error = await came
        if error is not None:
            raise error
        return result

    def _came(self, call: Call, outcome: Outcome) -> None:
        self._calls.remove(call)
        if not call.is_given_up:
            assert call.timer is not None
            call.timer.cancel()
            call.then(outcome)

    def _give_up(self, call: Call) -> None:
        call.is_given_up = True
        call.then(Outcome(None, _hangs(f"has not answered for {call.patience_s:.0f} s")))


def _hangs(what: str) -> DiskHangs:
    return DiskHangs(errno.ETIMEDOUT, f"the disk {what}; is it one over a network that is gone?")
