"""A path on which every TCP connection has its limit, as a long one has: a proxy on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

BUFFER_BYTES = 64 << 10  # of each socket: what a connection has under way
PIECES_PER_S = 50


class NarrowPath:
    """Forwards connections to one address, each way at so many bytes a second at most."""

    def __init__(self, host: str, port: int, bytes_per_s: float) -> None:
        self._target, self._bytes_per_s = (host, port), bytes_per_s
        self.opened = 0  # connections so far
        self.is_closed = False  # to further ones
        self._connections: list[asyncio.Task[None]] = []

    @property
    def open_now(self) -> int:
        return sum(not task.done() for task in self._connections)

    def break_newest(self) -> None:
        """Cut the connection that was opened last."""
        self._connections[-1].cancel()

    async def forward(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Take a connection, until either end closes it."""
        task = asyncio.current_task()
        assert task is not None
        if self.is_closed:
            writer.close()
            return
        self._connections.append(task)
        self.opened += 1
        there = _small_socket()
        await asyncio.get_running_loop().sock_connect(there, self._target)
        out_reader, out_writer = await asyncio.open_connection(sock=there)
        try:
            ways = (self._pump(reader, out_writer), self._pump(out_reader, writer))
            for first in asyncio.as_completed(ways):
                with contextlib.suppress(OSError):
                    await first
        except asyncio.CancelledError:  # as if the line were cut
            writer.transport.abort()
            out_writer.transport.abort()
        finally:
            writer.close()
            out_writer.close()

    async def _pump(self, reader: StreamReader, writer: StreamWriter) -> None:
        piece_bytes = max(1, int(self._bytes_per_s / PIECES_PER_S))
        due = asyncio.get_running_loop().time()
        while data := await reader.read(piece_bytes):
            due = max(due, asyncio.get_running_loop().time()) + len(data) / self._bytes_per_s
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
        writer.close()


def _small_socket() -> socket.socket:
    tcp = socket.socket()
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    tcp.setblocking(False)
    return tcp


@asynccontextmanager
async def narrow_path(
    host: str, port: int, bytes_per_s: float
) -> AsyncIterator[tuple[NarrowPath, int]]:
    """The path, and the port on loopback where it begins."""
    path = NarrowPath(host, port, bytes_per_s)
    listener = _small_socket()
    listener.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(path.forward, sock=listener, limit=BUFFER_BYTES)
    try:
        yield path, listener.getsockname()[1]
    finally:
        server.close()
        for task in path._connections:
            task.cancel()
        await asyncio.gather(*path._connections, return_exceptions=True)
