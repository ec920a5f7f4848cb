"""Streams: further connections for one link, where one does not fill the path.

On a long path one TCP connection carries what its window allows, however much more the path would
take. While bulk waits, the end that sends it opens further connections to the same peer; each takes
whole messages that nothing has begun to write. Control stays on the link's first connection.

A further connection is one way: only who has opened it sends messages on it. So it may close it
when nothing is left to send, and nothing can be lost by that. In every other way, the loss of one
connection is the loss of the link.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence

import torch

from swarmrt.errors import RunError, WireError
from swarmrt.messages import Message
from swarmrt.runtime.carriers.carriers import Connection
from swarmrt.runtime.limits.uplink import Put, Way
from swarmrt.wire.kinds import Hello, Join
from swarmrt.wire.limits import GREETING
from swarmrt.wire.reading import FrameReader
from swarmrt.wire.writing import FrameWriter, Outgoing, encode

log = logging.getLogger("swarmrt.links")

WIDEN_S = 0.2  # how long a message waits before there is one more
IDLE_S = 10.0  # after which one is closed
JOIN_S = 10.0
REST_S = 60.0  # after one that could not be opened


class Stream:
    """A further connection, with what is on its way on it."""

    def __init__(self, connection: Connection, source: FrameWriter) -> None:
        """`source` holds what waits for the link."""
        self.connection = connection
        self.frames = FrameWriter(source.tally, source.frame_bytes)
        self.joined = asyncio.Event()
        self.is_done = False  # closed by us

    def put(self, rank: int | None = None) -> int:
        """Write what is next, and return how many bytes that is."""
        buffers = self.frames.next_frames(rank)
        self.connection.write(buffers)
        return sum(map(len, buffers))


class Streams:
    """The further connections that this end has opened for a link."""

    def __init__(
        self,
        source: FrameWriter,
        most: int,
        key: str,
        dial: Callable[[], Awaitable[Connection]],
        on_broken: Callable[[str], None],
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
        turn: Callable[[FrameWriter, Put, Way], Awaitable[None]] | None = None,
    ) -> None:
        """`source` holds what waits for the link; `key` is the one of the other end's hello. With
        `turn` each frame waits for its turn on the uplink."""
        self._turn = turn
        self._source, self._most, self._key = source, most, key
        self._dial, self._on_broken, self._spawn = dial, on_broken, spawn
        self._streams: set[Stream] = set()
        self._open: set[Connection] = set()  # those that are closing too
        self._tasks: set[asyncio.Task[None]] = set()
        self._widening = False
        self._rests_until = 0.0  # on the loop's clock
        self._work = asyncio.Event()

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def queued_bytes(self) -> int:
        return sum(stream.frames.queued_bytes for stream in self._streams)

    def pushed(self) -> None:
        """Write what was pushed into the source, now or when there is room."""
        if self._source.last_waiting() is None:
            return
        self._work.set()
        is_resting = asyncio.get_running_loop().time() < self._rests_until
        if not self._widening and not is_resting and len(self._streams) < self._most:
            self._widening = True
            self._start(self._widen())

    def unsent(self) -> list[Outgoing]:
        return [outgoing for stream in self._streams for outgoing in stream.frames.unsent()]

    def close(self) -> None:
        """End them once what was written has gone out. `wait_closed` next."""
        self._stop()
        for connection in list(self._open):
            connection.close()

    def abort(self) -> None:
        """End them as they are."""
        self._stop()
        for connection in list(self._open):
            connection.abort()

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for stream in self._streams:
            stream.is_done = True
        self._streams.clear()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(connection.wait_closed() for connection in self._open))

    # ------------------------------------------------------------------ opening

    async def _widen(self) -> None:
        """Open one more whenever a message has not been begun for so long."""
        try:
            while len(self._streams) < self._most:
                last = self._source.last_waiting()
                if last is None:
                    break
                await asyncio.sleep(WIDEN_S)
                if not last.begun:
                    await self._add()
        except (OSError, RunError) as error:  # the first one serves
            why = str(error) or type(error).__name__
            log.info("no further connection for a link in the next %.0f s: %s", REST_S, why)
            self._rests_until = asyncio.get_running_loop().time() + REST_S
        finally:
            self._widening = False

    async def _add(self) -> None:
        """Open one more. Raises RunError or OSError when the other end cannot be dialed, or takes
        no more."""
        stream = Stream(await self._dial(), self._source)
        connection = stream.connection
        self._open.add(connection)
        stream.frames.push(encode(Join(self._key)))
        connection.write(stream.frames.next_frames())

        def received(message: Message, _: Sequence[torch.Tensor]) -> None:
            if stream.joined.is_set() or not isinstance(message, Hello | Join):
                raise WireError(f"{type(message).__name__} came on a connection that is one way")
            if isinstance(message, Join):
                stream.joined.set()

        def ended(reason: str) -> None:
            self._open.discard(connection)
            stream.joined.set()  # or never
            if stream in self._streams and not stream.is_done:
                self._on_broken(f"a further connection of it broke: {reason}")

        connection.begin(FrameReader(GREETING), received, ended)
        try:
            async with asyncio.timeout(JOIN_S):
                await stream.joined.wait()
            if connection not in self._open:
                raise RunError("the other end takes no more")
        except BaseException:
            connection.abort()
            raise
        self._streams.add(stream)
        self._start(self._write(stream))

    # ------------------------------------------------------------------ writing

    async def _write(self, stream: Stream) -> None:
        """Write one message after the other, as long as more come."""
        try:
            while await self._take(stream):
                while len(stream.frames):
                    if self._turn is None:
                        stream.put()
                    else:
                        await self._turn(stream.frames, stream.put, stream.connection)
                    await stream.connection.drain()
        except OSError as error:
            if not stream.is_done:
                self._on_broken(f"a further connection of it broke: {error}")
            return
        except Exception as error:
            self._on_broken(f"writing to it failed: {error or type(error).__name__}")
            raise
        stream.is_done = True
        self._streams.discard(stream)
        stream.connection.close()

    async def _take(self, stream: Stream) -> bool:
        """Wait for a message; false when none has come for long."""
        while (outgoing := self._source.take_waiting()) is None:
            self._work.clear()
            try:
                async with asyncio.timeout(IDLE_S):
                    await self._work.wait()
            except TimeoutError:
                return False
        stream.frames.push(outgoing)
        return True

    def _start(self, coroutine: Coroutine[None, None, None]) -> None:
        task = self._spawn(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
