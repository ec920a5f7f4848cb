"""The share of the uplink that links may use: a token bucket for all of a process's frames.

Control goes first and may run into debt, so that it does not wait for bulk. Then come activations
and gradients, then state (`wire/ranks.py`). Among equals it is the turn of the peer whose last turn
was longest ago, however many connections it has: who asks for the state again and again gets its
share of what is left, and takes nothing from others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from swarmrt.runtime.limits.rates import Bucket, Rate
from swarmrt.wire.frames import CHUNK_BYTES
from swarmrt.wire.limits import MAX_HEADER_BYTES
from swarmrt.wire.ranks import CONTROL, STATE, WORK, Turns
from swarmrt.wire.writing import FrameWriter

CONTROL_DEBT_BYTES = 2 * CHUNK_BYTES  # one frame of bulk, and control after it
LARGEST_BYTES = 2 * CHUNK_BYTES + MAX_HEADER_BYTES  # that are written in one piece
BURST_S = 0.02  # what was not used may be used later: timers are not exact
LEAST_WAIT_S = 0.001

Put = Callable[[], int]
"""Writes what is next, and returns how many bytes that was."""


@dataclass(eq=False)
class Share:
    """The part of the uplink that one peer has."""

    last_turn: int = 0


@dataclass(eq=False)
class Waiting:
    """A writer that waits for its turn."""

    share: Share
    frames: FrameWriter
    put: Put
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Uplink:
    """A bound on all links: so many bytes a second, and `most_ahead_bytes` at once."""

    def __init__(self, bytes_per_s: float) -> None:
        burst_bytes = max(CHUNK_BYTES, bytes_per_s * BURST_S)
        self.most_ahead_bytes = burst_bytes + CONTROL_DEBT_BYTES + LARGEST_BYTES
        self._loop = asyncio.get_running_loop()
        self._bucket = Bucket(Rate(burst_bytes, bytes_per_s), self._loop.time())
        self._waiting: list[Waiting] = []
        self._turns, self._turn = Turns(), 0
        self._timer: asyncio.TimerHandle | None = None

    def put_control(self, frames: FrameWriter, put: Put) -> None:
        """Have control put at once, where it is next. The rest waits for its `turn`."""
        if frames.rank == CONTROL and self._missing_bytes(CONTROL) < 0:
            self._bucket.left -= put()
        self._go_on()  # what has come may be more urgent than what was waited for

    async def turn(self, share: Share, frames: FrameWriter, put: Put) -> None:
        """Have `put` called when these frames may go; it may find that they have gone."""
        waiting = Waiting(share, frames, put)
        self._waiting.append(waiting)
        self._go_on()
        try:
            await waiting.done
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def _go_on(self) -> None:
        """Let go what may go now, and look again when the next may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            chosen, rank = self._next()
            missing = self._missing_bytes(rank)
            if missing >= 0:
                wait_s = max(missing / self._bucket.rate.per_s, LEAST_WAIT_S)
                self._timer = self._loop.call_later(wait_s, self._go_on)
                return
            self._waiting.remove(chosen)
            self._turn += 1
            chosen.share.last_turn = self._turn
            try:
                self._bucket.left -= chosen.put()
            except Exception as error:  # its own writer's
                chosen.done.set_exception(error)
            else:
                chosen.done.set_result(None)

    def _missing_bytes(self, rank: int) -> float:
        """Return how much has to come back before such a frame may go; negative when it may now."""
        self._bucket.fill(self._loop.time())
        least = -CONTROL_DEBT_BYTES if rank == CONTROL else 0
        return least - self._bucket.left

    def _next(self) -> tuple[Waiting, int]:
        """Return who is next, and the rank of what it has."""
        ranks = {waiting: waiting.frames.rank for waiting in self._waiting}
        rank = min(ranks.values())
        if rank == WORK and STATE in ranks.values():
            rank = STATE if self._turns.is_states else WORK
            if self._missing_bytes(rank) < 0:
                self._turns.took(rank)
        its = [waiting for waiting in self._waiting if ranks[waiting] == rank]
        return min(its, key=lambda waiting: waiting.share.last_turn), rank
