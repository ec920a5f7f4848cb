"""Links over libp2p streams, through the daemon of this process, which reaches peers behind NAT."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence

from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo

from swarmrt.ids import PeerId
from swarmrt.runtime.carriers.buffered import BufferedConnection
from swarmrt.runtime.carriers.carriers import DIAL_S, Carrier, Connection, Welcome
from swarmrt.runtime.daemon.daemon import Daemon
from swarmrt.runtime.reach.addresses import Reach, host_of
from swarmrt.runtime.reach.multiaddrs import CIRCUIT

STREAM = "swarmrt/1"
HOLE_S = 7.0  # in which a way past the relay is found, if there is one


class Libp2pConnection(BufferedConnection):
    """A stream of the daemon's. libp2p has proved who is at its other end."""

    carrier = "libp2p"
    _writer: StreamWriter
    _at = ""

    @classmethod
    async def take_over(
        cls, peer: PeerId, reader: StreamReader, writer: StreamWriter, at: str = ""
    ) -> Libp2pConnection:
        """Have its transport, past the reader, which would copy all that comes in twice. `at` is
        the multiaddr of the other end, where that is known."""
        reader.feed_eof()  # so that what it has read is all that it gives
        connection = cls(peer, await reader.read())
        connection._writer = writer  # it closes the transport when it goes
        connection._at = at
        writer.transport.set_protocol(connection)
        connection.connection_made(writer.transport)
        return connection

    def host(self) -> str | None:
        return None if CIRCUIT in self._at else host_of(self._at)


class Libp2pCarrier(Carrier):
    name = "libp2p"

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def start(self, welcome: Welcome) -> None:
        async def incoming(info: StreamInfo, reader: StreamReader, writer: StreamWriter) -> None:
            peer = PeerId(info.peer_id.to_base58())
            at = str(info.addr)
            welcome(await Libp2pConnection.take_over(peer, reader, writer, at))

        await self._daemon.take_streams(STREAM, incoming)

    def addresses(self) -> list[str]:
        return self._daemon.addresses()

    def may_reach(self, addresses: Sequence[str]) -> bool:
        return True  # the daemon may know more than we do

    def within(self, reach: Reach, addresses: Sequence[str]) -> list[str]:
        return reach.multiaddrs(addresses)

    async def dial(
        self, peer: PeerId, addresses: Sequence[str], patience_s: float = DIAL_S
    ) -> Connection:
        if addresses:
            await self._daemon.connect(peer, addresses)
            await self._daemon.wait_for_hole(peer, addresses, HOLE_S)
        reader, writer = await self._daemon.open_stream(peer, STREAM)
        return await Libp2pConnection.take_over(peer, reader, writer)

    async def close(self) -> None:
        """The handler ends with the daemon."""
