"""A thread beside the event loop, for work that would hold it up.

Seats of a process share the one of its device, in turns (`scheduler.peer.work.lanes`).

Handing work over and waking the loop up cost more than many a small microbatch takes. So outcomes
may come back in groups: as soon as as many of them wait as there are jobs left, the loop takes
them, while the thread goes on with the rest.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

from swarmrt.ids import NO_SEAT
from swarmrt.runtime.process.aside import CLOSE_S, end
from swarmrt.scheduler.peer.work.lanes import Lanes


class Outcome(NamedTuple):
    """The result of a job, or the error that it raised."""

    result: Any
    error: BaseException | None = None


Then = Callable[[Outcome], None]


class Job(NamedTuple):
    work: Callable[[], Any]
    then: Then
    seat: int
    is_forward: bool


class Worker:
    """A thread that does one job after the other, each seat's in their order. `close` at the
    end."""

    def __init__(self, name: str, *, in_groups: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._in_groups = in_groups
        self._together: AbstractContextManager[None] = nullcontext()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lanes: Lanes[Job] = Lanes()  # of what the thread has taken of them
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def deliver_within(self, together: AbstractContextManager[None]) -> None:
        """A context for the loop to take each group in."""
        self._together = together

    def run(
        self,
        work: Callable[[], Any],
        then: Then,
        *,
        seat: int = NO_SEAT,
        is_forward: bool = False,
    ) -> None:
        """Do it on the thread; `then` is called on the loop."""
        self._jobs.put(Job(work, then, seat, is_forward))

    async def call(self, work: Callable[[], Any], *, seat: int = NO_SEAT) -> Any:
        """Do it on the thread, and wait. Raises whatever it raises."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.run(work, partial(_settle, future), seat=seat)
        return await future

    def close(self, patience_s: float = CLOSE_S) -> None:
        """Wait until all jobs are done. Outcomes that the loop has not taken yet still come.

        A thread that does not come to its end is left behind: the process ends without it.
        """
        self._jobs.put(None)
        end(self._thread, patience_s)

    async def __aenter__(self) -> Worker:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it beside the loop, which it may take long to do."""
        await asyncio.to_thread(self.close)

    def _work(self) -> None:
        outcomes: list[tuple[Then, Outcome]] = []
        while (job := self._next()) is not None:
            work, then = job.work, job.then
            try:
                outcome = Outcome(work())
            except BaseException as error:  # noqa: BLE001 - carried to the loop
                outcome = Outcome(None, error)
            outcomes.append((then, outcome))
            del job, work, then, outcome  # what they hold is not kept until the next one comes
            if not self._in_groups or len(outcomes) >= self._jobs.qsize() + len(self._lanes):
                if self._loop.is_closed():
                    return  # this thread hung, and was left behind
                self._loop.call_soon_threadsafe(self._deliver, outcomes)
                outcomes = []

    def _next(self) -> Job | None:
        """Wait for the next job, and take it; None at the end."""
        jobs, lanes = self._jobs, self._lanes
        while not self._is_closing and (not len(lanes) or not jobs.empty()):
            job = jobs.get()
            if job is None:
                self._is_closing = True
            else:
                lanes.add(job.seat, job, is_forward=job.is_forward)
        return lanes.take() if len(lanes) else None

    def _deliver(self, outcomes: list[tuple[Then, Outcome]]) -> None:
        with self._together:
            for then, outcome in outcomes:
                then(outcome)


def _settle(future: asyncio.Future[Any], outcome: Outcome) -> None:
    if future.cancelled():
        return
    if outcome.error is not None:
        future.set_exception(outcome.error)
    else:
        future.set_result(outcome.result)
