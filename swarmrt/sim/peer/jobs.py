"""The threads of a simulated peer: jobs take time, one after the other, and threads may hang."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Literal

from swarmrt.sim.engine.clock import Clock
from swarmrt.sim.engine.process import Process

Thread = Literal["compute", "reduce", "update", "load"]


class Jobs:
    def __init__(
        self, process: Process, clock: Clock, rng: random.Random, service_s: float
    ) -> None:
        """`service_s`: of a forward."""
        self.service_s = service_s
        self._process, self._clock, self._rng = process, clock, rng
        self._jobs: deque[tuple[float, Thread, Callable[[], None]]] = deque()  # one at a time
        self._hung_until: dict[Thread, float] = {}

    def hang(self, thread: Thread, seconds: float) -> None:
        """Make what it does there take so much longer, while the process beacons as before."""
        until = self._clock.now + seconds
        self._hung_until[thread] = max(until, self._hung_until.get(thread, 0.0))

    @property
    def is_hung(self) -> bool:
        return max(self._hung_until.values(), default=0.0) > self._clock.now

    def once_moving(self, thread: Thread, act: Callable[[], None]) -> None:
        """Do it at once, unless the thread hangs."""
        wait_s = self._hung_until.get(thread, 0.0) - self._clock.now
        if wait_s <= 0:
            act()
        else:
            self._clock.after(wait_s, lambda: act() if self._process.alive else None)

    def later(self, share: float, act: Callable[[], None], thread: Thread = "compute") -> None:
        """Do it on the compute thread, one after the other. A pause of the process stops it too.

        `share` is of the time that a forward takes. The optimizer can hang by itself.
        """
        self._jobs.append((share, thread, act))
        if len(self._jobs) == 1:
            self._begin()

    def _begin(self) -> None:
        share, _, _ = self._jobs[0]
        self._clock.after(self.service_s * share * self._rng.uniform(0.8, 1.2), self._end)

    def _end(self) -> None:
        if not self._process.alive:
            return
        if self._process.paused:
            self._clock.after(0.05, self._end)
            return
        _, thread, act = self._jobs[0]
        hung_s = self._hung_until.get(thread, 0.0) - self._clock.now
        if hung_s > 0:
            self._clock.after(hung_s, self._end)
            return
        act()
        self._jobs.popleft()
        if self._jobs:
            self._begin()
