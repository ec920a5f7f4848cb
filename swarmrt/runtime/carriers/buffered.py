"""A connection over one of asyncio's transports, which payloads pass without a copy of ours: they
are read into their tensors, and written from them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from swarmrt.ids import PeerId
from swarmrt.runtime.carriers.carriers import Connection
from swarmrt.wire.frames import CHUNK_BYTES

CLOSE_S = 2.0  # for the last bytes to go out, and the other end to notice
JOINED_BYTES = 16 << 10  # as much as a TLS record holds; each buffer would get one of its own
EARLY_BYTES = 4 << 10  # kept until `begin`: uvloop starts to read before it can be told not to


class BufferedConnection(Connection, asyncio.BufferedProtocol):
    """The protocol of a transport, which `connection_made` hands over."""

    def __init__(self, peer: PeerId, early: bytes = b"") -> None:
        """`early` is what was read from the transport before, in some other way."""
        super().__init__(peer)
        self._transport: asyncio.Transport
        self._writable = asyncio.Event()
        self._is_lost = asyncio.Event()
        self._reason = "the link was closed"
        self._early = memoryview(bytearray(early) + bytearray(EARLY_BYTES))
        self._early_bytes = len(early)
        self._is_reading = False

    # ------------------------------------------------------------------ for links

    def start_reading(self) -> None:
        asyncio.get_running_loop().call_soon(self._read_on)

    @property
    def may_write(self) -> bool:
        return self._writable.is_set() and not self._transport.is_closing()

    def write(self, buffers: Sequence[bytes | memoryview]) -> None:
        if len(buffers) == 1:
            self._transport.write(buffers[0])
        elif sum(map(len, buffers)) <= JOINED_BYTES:
            self._transport.write(b"".join(buffers))
        else:
            self._transport.writelines(buffers)

    async def drain(self) -> None:
        if not self._writable.is_set():
            await self._writable.wait()
        else:
            await asyncio.sleep(0)  # so that what comes in is read meanwhile
        if self._is_lost.is_set():
            raise ConnectionResetError(self._reason)

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    async def wait_closed(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._is_lost.wait()
        except TimeoutError:
            self.abort()

    # ------------------------------------------------------------------ for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.pause_reading()  # until `begin`
        self._transport.set_write_buffer_limits(high=CHUNK_BYTES)  # control waits for no more
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.frames.get_buffer() if self._is_reading else self._early[self._early_bytes :]

    def buffer_updated(self, size: int) -> None:
        if self._is_reading:
            self.take(self.frames.buffer_updated(size))
            if self.downlink is not None and not self._is_lost.is_set():
                self.downlink.came(self, size, self.frames.rank)
        else:
            self._early_bytes += size
            self._transport.pause_reading()

    def _read_on(self) -> None:
        self._is_reading = True
        self.take(self.frames.feed(self._early[: self._early_bytes]))
        if self._is_lost.is_set():
            self.end(self._reason)
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    def hold(self) -> None:
        """Read nothing more, for the downlink's sake."""
        self._transport.pause_reading()

    def go_on(self) -> None:
        """Read on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def eof_received(self) -> None:
        """The transport closes itself."""

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._reason = str(error) or type(error).__name__
        self.ended_well = error is None
        if self.downlink is not None:
            self.downlink.forget(self)
        self._is_lost.set()
        self._writable.set()  # whoever waits finds that it is lost
        self.end(self._reason)
