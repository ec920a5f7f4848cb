"""The work of a peer that is done beside its event loop, on its threads.

Forward, backward and update run on one thread, one at a time. The arithmetic of the reduce runs
on another one beside them, and only reads accumulators, or contributions. A backward that adds to
one, or the clearing of one, voids the rounds of that step, so that what was read meanwhile counts
for nothing. An update waits until its round is combined.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from swarmrt.runtime.computing.transfers import Transfers
from swarmrt.runtime.faults.faults import Thread
from swarmrt.runtime.peer.serve_options import Threads
from swarmrt.runtime.process.process import Process
from swarmrt.runtime.process.worker import Outcome, Worker

Then = Callable[[Any], None]  # what becomes of an outcome, on the loop


class Jobs:
    """The jobs of a seat, whose errors end its process."""

    def __init__(self, seat: int, threads: Threads, process: Process, transfers: Transfers) -> None:
        self._seat = seat
        self._threads, self._process, self._transfers = threads, process, transfers

    def compute(self, work: Callable[[], Any], then: Then | None = None) -> None:
        """Run work on the torch thread; its outcome comes back to the loop."""
        self._run(self._threads.torch, work, then)

    def forward(self, work: Callable[[], Any], then: Then) -> None:
        """Compute a forward, which other seats' work may go before."""
        self._run(self._threads.torch, work, then, is_forward=True)

    def reduce(self, work: Callable[[], Any], then: Then | None = None) -> None:
        """Run work on the reduce's own thread, beside forwards and backwards."""
        self._run(self._threads.reduce, partial(self._transfers.beside, work), then)

    def wait_for_host(self, work: Callable[[], Any], then: Then) -> None:
        """Wait for a copy to the host, beside what is computed next."""
        self._run(self._threads.to_host, work, then)

    async def computed(self, work: Callable[[], Any]) -> Any:
        """Run work on the torch thread, and wait. Raises whatever it raises."""
        return await self._threads.torch.call(work, seat=self._seat)

    async def nothing_beside(self) -> None:
        """Wait until nothing that was begun so far reads a stage beside the torch thread."""
        for worker in (self._threads.reduce, self._threads.to_host):
            await worker.call(lambda: None)

    def hang(self, thread: Thread, seconds: float) -> None:
        """Let a thread do nothing for a while, as a device does that hangs."""
        worker = self._threads.torch if thread == "compute" else self._threads.reduce
        self._run(worker, partial(time.sleep, seconds), None)

    def _run(
        self,
        worker: Worker,
        work: Callable[[], Any],
        then: Then | None,
        *,
        is_forward: bool = False,
    ) -> None:
        def done(outcome: Outcome) -> None:
            if outcome.error is not None:
                self._process.crash(outcome.error)
            elif then is not None and not self._process.stopped.done():
                then(outcome.result)

        worker.run(work, done, seat=self._seat, is_forward=is_forward)
