"""The threads of a simulated process: jobs take time, one after the other, and threads may hang."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from swarmrt.scheduler.peer.work.lanes import Lanes
from swarmrt.sim.engine.clock import Clock
from swarmrt.sim.engine.process import Process

Thread = Literal["compute", "reduce", "update", "load"]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    seat: Jobs
    share: float
    thread: Thread
    act: Callable[[], None]


class Device:
    """The compute thread of a process, which its seats share, and the threads beside it."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock, self._rng = clock, rng
        self._lanes: Lanes[_Job] = Lanes()
        self._running: _Job | None = None
        self._hung_until: dict[Thread, float] = {}

    def hang(self, thread: Thread, seconds: float) -> None:
        """Make what it does there take so much longer, while the process beacons as before."""
        until = self._clock.now + seconds
        self._hung_until[thread] = max(until, self._hung_until.get(thread, 0.0))

    @property
    def is_hung(self) -> bool:
        return max(self._hung_until.values(), default=0.0) > self._clock.now

    def hangs_s(self, thread: Thread) -> float:
        """Return for how long a thread will do nothing; nothing or less where it works."""
        return self._hung_until.get(thread, 0.0) - self._clock.now

    def add(self, job: _Job, *, is_forward: bool) -> None:
        self._lanes.add(job.seat, job, is_forward=is_forward)
        if self._running is None:
            self._begin()

    def _begin(self) -> None:
        self._running = job = self._lanes.take()
        service_s = job.seat.service_s * job.share
        self._clock.after(service_s * self._rng.uniform(0.8, 1.2), self._end)

    def _end(self) -> None:
        job = self._running
        assert job is not None
        process = job.seat.process
        if not process.alive:
            self._lanes.drop(job.seat)
            self._go_on()
            return
        if process.paused:
            self._clock.after(0.05, self._end)
            return
        hung_s = self.hangs_s(job.thread)
        if hung_s > 0:
            self._clock.after(hung_s, self._end)
            return
        job.act()
        self._go_on()

    def _go_on(self) -> None:
        self._running = None
        if len(self._lanes):
            self._begin()


class Jobs:
    """The jobs of a seat."""

    def __init__(
        self,
        process: Process,
        clock: Clock,
        rng: random.Random,
        service_s: float,
        device: Device | None = None,
    ) -> None:
        """`service_s`: of a forward. Without a `device` it has one of its own."""
        self.service_s, self.process = service_s, process
        self.device = device or Device(clock, rng)
        self._clock = clock

    def hang(self, thread: Thread, seconds: float) -> None:
        """Make what its process does there take so much longer, while it beacons as before."""
        self.device.hang(thread, seconds)

    @property
    def is_hung(self) -> bool:
        return self.device.is_hung

    def once_moving(self, thread: Thread, act: Callable[[], None]) -> None:
        """Do it at once, unless the thread hangs."""
        wait_s = self.device.hangs_s(thread)
        if wait_s <= 0:
            act()
        else:
            self._clock.after(wait_s, lambda: act() if self.process.alive else None)

    def later(
        self,
        share: float,
        act: Callable[[], None],
        thread: Thread = "compute",
        *,
        is_forward: bool = False,
    ) -> None:
        """Do it on the compute thread, one after the other. A pause of the process stops it too.

        `share` is of the time that a forward takes. The optimizer can hang by itself.
        """
        self.device.add(_Job(self, share, thread, act), is_forward=is_forward)
