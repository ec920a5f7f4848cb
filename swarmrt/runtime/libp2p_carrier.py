"""Links over libp2p streams, through the daemon of this process, which reaches peers behind NAT."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence

from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo

from swarmrt.ids import PeerId
from swarmrt.runtime.carriers import Carrier, Connection, Welcome
from swarmrt.runtime.daemon import Daemon
from swarmrt.wire.frames import CHUNK_BYTES

STREAM = "swarmrt/1"
READ_BYTES = 1 << 20


class Libp2pConnection(Connection):
    """A stream of the daemon's. libp2p has proved who is at its other end."""

    def __init__(self, peer: PeerId, reader: StreamReader, writer: StreamWriter) -> None:
        super().__init__(peer)
        self._reader, self._writer = reader, writer
        self._reading: asyncio.Task[None] | None = None

    def start_reading(self) -> None:
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @property
    def may_write(self) -> bool:
        transport = self._writer.transport
        return not transport.is_closing() and transport.get_write_buffer_size() < CHUNK_BYTES

    def write(self, buffers: Sequence[bytes | memoryview]) -> None:
        self._writer.writelines(buffers)

    async def drain(self) -> None:
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()

    async def wait_closed(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def _read(self) -> None:
        reason = "reading from it failed"  # a bug, unless one of the ends below is reached
        try:
            while data := await self._reader.read(READ_BYTES):
                self.take(self.frames.feed(data))
            reason = "the link was closed"
        except OSError as error:
            reason = str(error) or type(error).__name__
        finally:
            self.end(reason)


class Libp2pCarrier(Carrier):
    name = "libp2p"

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def start(self, welcome: Welcome) -> None:
        async def incoming(info: StreamInfo, reader: StreamReader, writer: StreamWriter) -> None:
            peer = PeerId(info.peer_id.to_base58())
            welcome(Libp2pConnection(peer, reader, writer))

        await self._daemon.p2p.add_binary_stream_handler(STREAM, incoming)

    def addresses(self) -> list[str]:
        return self._daemon.addresses()

    def may_reach(self, addresses: Sequence[str]) -> bool:
        return True  # the daemon may know more than we do

    async def dial(self, peer: PeerId, addresses: Sequence[str]) -> Connection:
        if addresses:
            await self._daemon.connect(peer, addresses)
        reader, writer = await self._daemon.open_stream(peer, STREAM)
        return Libp2pConnection(peer, reader, writer)

    async def close(self) -> None:
        """The handler ends with the daemon."""
