"""The share of the downlink that links may use: connections that bring too much are read later.

What is not read waits at the other end, by TCP's own flow control. So the bound is on what is read
in the long run; buffers of the system's on the way are filled first. Control is always read, but
for what comes on a connection behind bulk that is not. Of the others that wait, it is the turn of
activations and gradients first, then of parts of rounds, then of state (`wire/ranks.py`); among
equals of who has waited longest.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from swarmrt.runtime.limits.rates import Bucket, Rate
from swarmrt.wire.frames import CHUNK_BYTES
from swarmrt.wire.ranks import CONTROL, Turns

BURST_S = 0.01  # what was not used may be used later: timers are not exact
LEAST_WAIT_S = 0.001


class Way(Protocol):
    """A connection that bytes come from."""

    def hold(self) -> None:
        """Read nothing more."""

    def go_on(self) -> None:
        """Read on."""


class Downlink:
    """A bound on all connections: so many bytes a second, and `burst_bytes` at once."""

    def __init__(self, bytes_per_s: float) -> None:
        self.burst_bytes = max(CHUNK_BYTES, bytes_per_s * BURST_S)
        self._loop = asyncio.get_running_loop()
        self._bucket = Bucket(Rate(self.burst_bytes, bytes_per_s), self._loop.time())
        self._waiting: dict[Way, int] = {}  # and the rank of what comes next there
        self._turns = Turns()
        self._timer: asyncio.TimerHandle | None = None

    def came(self, way: Way, size: int, rank: int) -> None:
        """Take note that so many bytes were read, and of what rank the next ones are."""
        self._bucket.fill(self._loop.time())
        self._bucket.left -= size
        if rank != CONTROL and self._bucket.left < 0:
            way.hold()
            self._waiting[way] = rank
            if self._timer is None:
                self._look_again()

    def forget(self, way: Way) -> None:
        """Forget a connection that has ended."""
        self._waiting.pop(way, None)

    def _look_again(self) -> None:
        """Look again once there is room, and not before what goes on now has brought anything."""
        missing_bytes = max(0.0, -self._bucket.left)
        wait_s = max(missing_bytes / self._bucket.rate.per_s, LEAST_WAIT_S)
        self._timer = self._loop.call_later(wait_s, self._go_on)

    def _go_on(self) -> None:
        """Have the next one read on, if there is room."""
        self._timer = None
        self._bucket.fill(self._loop.time())
        if self._waiting and self._bucket.left >= 0:
            ranks = set(self._waiting.values())
            rank = self._turns.next(ranks)
            self._turns.took(rank, ranks)
            way = next(way for way, its in self._waiting.items() if its == rank)
            del self._waiting[way]
            way.go_on()
        if self._waiting:
            self._look_again()
