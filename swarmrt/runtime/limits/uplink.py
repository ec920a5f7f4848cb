"""The share of the uplink that links may use: a token bucket for all of a process's frames.

Control goes first and may run into debt, so that it does not wait for bulk. Then come activations
and gradients, then parts of rounds, then state (`wire/ranks.py`), whichever link they go over: they
all share one uplink. Frames are so short that whatever comes first soon has its turn. Among equals
it is the turn of the peer whose last turn was longest ago, however many connections it has: who
asks for the state again and again gets its share of what is left, and takes nothing from others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from swarmrt.runtime.limits.rates import Bucket, Rate
from swarmrt.wire.frames import CHUNK_BYTES, LEAST_CHUNK_BYTES
from swarmrt.wire.limits import MAX_HEADER_BYTES
from swarmrt.wire.ranks import CONTROL, Turns
from swarmrt.wire.writing import FrameWriter

CONTROL_DEBT_BYTES = 2 * CHUNK_BYTES  # one frame of bulk, and control after it
LARGEST_BYTES = 2 * CHUNK_BYTES + MAX_HEADER_BYTES  # that are written in one piece
FRAME_S = 0.003  # that a frame of bulk takes, where it may be as short: others wait for its end
BURST_S = 0.01  # what was not used may be used later: timers are not exact
LEAST_WAIT_S = 0.001

Put = Callable[[int], int]
"""Writes what is next of a rank, and returns how many bytes that was."""


class Way(Protocol):
    """A connection to where frames go."""

    @property
    def may_write(self) -> bool:
        """Return whether it takes more now."""


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
    way: Way
    last_turn: int = 0  # of those that have a peer's share together
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Uplink:
    """A bound on all links: so many bytes a second, and `most_ahead_bytes` at once."""

    def __init__(self, bytes_per_s: float) -> None:
        of_a_frame_bytes = max(LEAST_CHUNK_BYTES, bytes_per_s * FRAME_S)
        self.frame_bytes = min(CHUNK_BYTES, int(of_a_frame_bytes))
        burst_bytes = max(self.frame_bytes, bytes_per_s * BURST_S)
        self.most_ahead_bytes = burst_bytes + CONTROL_DEBT_BYTES + LARGEST_BYTES
        self._loop = asyncio.get_running_loop()
        self._bucket = Bucket(Rate(burst_bytes, bytes_per_s), self._loop.time())
        self._waiting: list[Waiting] = []
        self._turns, self._turn = Turns(), 0
        self._timer: asyncio.TimerHandle | None = None

    def put_control(self, frames: FrameWriter, put: Put) -> None:
        """Have control put at once, where it is next. The rest waits for its `turn`."""
        if CONTROL in frames.waiting and self._missing_bytes(CONTROL) < 0:
            self._bucket.left -= put(CONTROL)
        self._go_on()  # what has come may be more urgent than what was waited for

    async def turn(self, share: Share, frames: FrameWriter, put: Put, way: Way) -> None:
        """Have `put` called whenever it is the turn of these frames, while they wait and the way
        takes more. It may find that they have gone."""
        waiting = Waiting(share, frames, put, way)
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
            chosen, rank, ranks = self._next()
            missing = self._missing_bytes(rank)
            if missing >= 0:
                wait_s = max(missing / self._bucket.rate.per_s, LEAST_WAIT_S)
                self._timer = self._loop.call_later(wait_s, self._go_on)
                return
            self._turn += 1
            chosen.share.last_turn = chosen.last_turn = self._turn
            self._turns.took(rank, ranks)
            self._put(chosen, rank)

    def _put(self, chosen: Waiting, rank: int) -> None:
        """Have a frame put. Who has more keeps its place, or the next turn would be another's."""
        if chosen.done.done():  # its writer is cancelled, and will find out
            self._waiting.remove(chosen)
            return
        try:
            size = chosen.put(rank)
        except Exception as error:  # its own writer's
            self._waiting.remove(chosen)
            chosen.done.set_exception(error)
            return
        self._bucket.left -= size
        if not (size and chosen.frames.waiting and chosen.way.may_write):
            self._waiting.remove(chosen)
            chosen.done.set_result(None)

    def _missing_bytes(self, rank: int) -> float:
        """Return how much has to come back before such a frame may go; negative when it may now."""
        self._bucket.fill(self._loop.time())
        least = -CONTROL_DEBT_BYTES if rank == CONTROL else 0
        return least - self._bucket.left

    def _next(self) -> tuple[Waiting, int, set[int]]:
        """Return who is next, the rank of what it may write, and the ranks that wait. Where nothing
        waits any more, its writer has to find out, as if that were control."""
        waiting = [(one, one.frames.waiting or [CONTROL]) for one in self._waiting]
        ranks = {rank for _, its in waiting for rank in its}
        rank = self._turns.next(ranks)
        able = [one for one, its in waiting if rank in its]
        return min(able, key=lambda one: (one.share.last_turn, one.last_turn)), rank, ranks
