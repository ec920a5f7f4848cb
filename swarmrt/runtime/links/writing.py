"""Writing to links: what waits for a peer goes out in its turn, as fast as the peer reads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.runtime.carriers.carriers import Connection
from swarmrt.runtime.faults.faults import Late, LinkFaults
from swarmrt.runtime.limits.uplink import Uplink
from swarmrt.runtime.links.outbox import Gathering, Outbox
from swarmrt.wire.frames import CHUNK_BYTES, Tally
from swarmrt.wire.writing import Outgoing

log = logging.getLogger("swarmrt.links")


class Writing:
    """The outboxes of a process, each with a task that writes while something waits in it."""

    def __init__(
        self,
        dial: Callable[[PeerId, Outbox], Awaitable[None]],
        broken: Callable[[PeerId, Outbox, str], None],
        wrote: Callable[[PeerId, Outbox], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        before_gathered: Callable[[], None],
        tally: Tally,
        faults: LinkFaults | None,
        uplink: Uplink | None,
    ) -> None:
        """`dial` gives an outbox a connection, or raises RunError; `broken` is told what ends a
        writer, and `wrote` of each write."""
        self.outboxes: dict[PeerId, Outbox] = {}
        self.uplink = uplink
        self.together = Gathering(self._write_gathered, before_gathered)
        self._dial, self._broken, self._wrote, self._spawn = dial, broken, wrote, spawn
        self._tally, self._faults = tally, faults

    def outbox(self, peer: PeerId) -> Outbox:
        """Return a peer's outbox, a new one if there is none."""
        outbox = self.outboxes.get(peer)
        if outbox is None:
            most = CHUNK_BYTES if self.uplink is None else self.uplink.frame_bytes
            outbox = self.outboxes[peer] = Outbox(self._tally, most)
        return outbox

    def push(self, peer: PeerId, outbox: Outbox, outgoing: Outgoing) -> None:
        """Write it now or soon, in its turn."""
        if not self._is_held(peer, outbox, outgoing):
            self._push(peer, outbox, outgoing)

    def _push(self, peer: PeerId, outbox: Outbox, outgoing: Outgoing) -> None:
        outbox.frames.push(outgoing)
        if self.together.depth:
            self.together.outboxes[peer] = outbox
        else:
            self.write_now(peer, outbox)

    def write_now(self, peer: PeerId, outbox: Outbox) -> None:
        """Write as much as goes out at once: waking a task up takes longer than that."""
        frames, connection = outbox.frames, outbox.connection
        if connection is not None and connection.may_write:
            put = partial(self._put, peer, outbox, connection)
            if self.uplink is None:
                put()
            else:
                self.uplink.put_control(frames, put)
        if not len(frames):
            return
        outbox.wake.set()
        if outbox.streams is not None:
            outbox.streams.pushed()
        if outbox.task is None:
            outbox.task = self._spawn(self._write(peer, outbox))

    def _is_held(self, peer: PeerId, outbox: Outbox, outgoing: Outgoing) -> bool:
        """Return whether the link is slow: then it is pushed later, and after what is late
        already."""
        if self._faults is None:
            return False
        delay_s = self._faults.delay_s(peer)
        if not delay_s and not outbox.late:
            return False
        if outbox.late is None:
            outbox.late = Late(partial(self._push, peer, outbox), self.together)
        outbox.late.hold(outgoing, delay_s)
        return True

    async def _write(self, peer: PeerId, outbox: Outbox) -> None:
        """Dial if need be, then write frame by frame, as fast as the other end reads."""
        try:
            if outbox.connection is None:
                await self._dial(peer, outbox)
            assert outbox.connection is not None
            while True:
                while not outbox.may_write:
                    outbox.wake.clear()
                    await outbox.wake.wait()
                connection = outbox.connection
                put = partial(self._put, peer, outbox, connection)
                if self.uplink is None:
                    put()
                else:
                    await self.uplink.turn(outbox.share, outbox.frames, put, connection)
                try:
                    await connection.drain()
                except OSError:
                    if outbox.connection is connection:
                        raise
                    continue  # another one has taken its place
        except (OSError, RunError) as error:
            self._broken(peer, outbox, str(error) or type(error).__name__)
        except Exception as error:  # nobody would write any more, and nobody would know
            self._broken(peer, outbox, f"writing to it failed: {error or type(error).__name__}")
            raise

    def _put(
        self, peer: PeerId, outbox: Outbox, connection: Connection, rank: int | None = None
    ) -> int:
        """Write what is next, if anything is, and return how many bytes that is."""
        if connection is not outbox.connection or not outbox.may_write:
            return 0
        buffers = outbox.frames.next_frames(rank)
        connection.write(buffers)
        self._wrote(peer, outbox)
        return sum(map(len, buffers))

    def _write_gathered(self, gathered: dict[PeerId, Outbox]) -> None:
        for peer, outbox in gathered.items():
            if self.outboxes.get(peer) is outbox:  # else it is broken, and told
                self.write_now(peer, outbox)

    async def flush(self, timeout_s: float) -> None:
        """Wait until everything queued is written, but not longer than this."""
        try:
            async with asyncio.timeout(timeout_s):
                while any(len(outbox) for outbox in self.outboxes.values()):
                    await asyncio.sleep(0.01)  # only at the very end of a process
        except TimeoutError:
            log.debug("messages were left unsent")

    def close(self) -> None:
        """Let go of what waits."""
        for outbox in self.outboxes.values():
            if outbox.late is not None:
                outbox.late.take_all()
        self.outboxes.clear()
