"""A path on which every TCP connection has its limit, as a long one has, or all of them share one,
as those of a home do: a proxy on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

BUFFER_BYTES = 64 << 10  # of each socket: what a connection has under way
PIECES_PER_S = 50
LATE_S = 0.005  # by which we may have been late to look whether a line is free


class Line:
    """A wire that carries so many bytes a second, one piece after the other."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self.piece_bytes = max(1, min(BUFFER_BYTES // 4, int(bytes_per_s / PIECES_PER_S)))
        self._free_at = 0.0  # on the loop's clock

    async def carry(self, size: int) -> None:
        """Wait until these bytes are through, after those that came before."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - LATE_S) + size / self._bytes_per_s
        await asyncio.sleep(self._free_at - now)


class NarrowPath:
    """Forwards connections to one address, each way at so many bytes a second at most; what goes
    there over one line, if there is one."""

    def __init__(self, host: str, port: int, bytes_per_s: float, line: Line | None = None) -> None:
        self._target, self._bytes_per_s, self._line = (host, port), bytes_per_s, line
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
            there_line, back_line = self._line or Line(self._bytes_per_s), Line(self._bytes_per_s)
            ways = (
                self._pump(reader, out_writer, there_line),
                self._pump(out_reader, writer, back_line),
            )
            for first in asyncio.as_completed(ways):
                with contextlib.suppress(OSError):
                    await first
        except asyncio.CancelledError:  # as if the line were cut
            writer.transport.abort()
            out_writer.transport.abort()
        finally:
            writer.close()
            out_writer.close()

    async def _pump(self, reader: StreamReader, writer: StreamWriter, line: Line) -> None:
        while data := await reader.read(line.piece_bytes):
            await line.carry(len(data))
            writer.write(data)
            await writer.drain()
        writer.close()


def _small_socket() -> socket.socket:
    tcp = socket.socket()
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    tcp.setblocking(False)
    return tcp


@asynccontextmanager
async def narrow_path(
    host: str, port: int, bytes_per_s: float, line: Line | None = None
) -> AsyncIterator[tuple[NarrowPath, int]]:
    """The path, and the port on loopback where it begins."""
    path = NarrowPath(host, port, bytes_per_s, line)
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
