"""Links over TCP and TLS 1.3, straight to the peer's own port.

Payloads go from the socket (or from OpenSSL) into their tensors, and from tensors into the socket,
with no copy of ours in between. What comes before the other end's identity is proved is bounded in
number, memory and time: nothing of ours is read before. Where many come at once, those of whoever
has most make room for the others (`greetings`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Coroutine, Sequence
from typing import Any, cast

from swarmrt.errors import RunError, WireError
from swarmrt.ids import PeerId
from swarmrt.runtime.access.identity import Identity
from swarmrt.runtime.carriers.buffered import CLOSE_S, BufferedConnection
from swarmrt.runtime.carriers.carriers import DIAL_S, Carrier, Connection, Welcome
from swarmrt.runtime.carriers.certificates import Contexts, make_contexts, peer_of_certificate
from swarmrt.runtime.limits.sparing import Sparing
from swarmrt.runtime.links.greetings import Greetings
from swarmrt.runtime.reach.addresses import (
    MAX_ADDRESSES,
    Reach,
    format_address,
    parse_address,
    visible_addresses,
)
from swarmrt.runtime.reach.listening import tcp_listener

log = logging.getLogger("swarmrt.direct")
log.addFilter(Sparing())

CONNECT_SHARE = 0.4  # of the patience: at first the system asks at 0, 1 and 3 s
GREET_S = 60.0  # for whoever dials from far away; when others need its place it may be less
MAX_GREETINGS = 64  # handshakes of incoming connections at a time
ACCEPT_AGAIN_S = 0.1  # when the system has no more descriptors, say
KEEP_ALIVE = {  # a machine that is gone is found out after 40 s; after 60 s if it is written to
    "TCP_KEEPIDLE": 20,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 4,
    "TCP_USER_TIMEOUT": 60_000,  # ms without an answer; the system itself would try for 15 minutes
}
ANYBODY = PeerId("")  # without TLS, which nothing but a benchmark is


class DirectConnection(BufferedConnection):
    """A TCP connection. `peer` is known once TLS has come up."""

    carrier = "direct"
    carrier_with_streams = "direct"

    def __init__(self) -> None:
        super().__init__(ANYBODY)

    def socket(self) -> socket.socket | None:
        return cast(socket.socket | None, self._transport.get_extra_info("socket"))

    def prove_peer(self) -> PeerId:
        """Learn the peer at the other end by the certificate that TLS has demanded. Raises
        WireError."""
        tls = self._transport.get_extra_info("ssl_object")
        return peer_of_certificate(tls.getpeercert(binary_form=True))

    def tune(self) -> None:
        """Send at once, and find out that a silent machine is gone. Raises OSError."""
        tcp = self._transport.get_extra_info("socket")
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):  # not on every system
                tcp.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class DirectCarrier(Carrier):
    """Listens where the libp2p daemon does, on a port of its own."""

    name = "direct"

    def __init__(
        self,
        identity: Identity,
        listen: Sequence[str] = ("127.0.0.1",),
        visible: Sequence[str] = (),
        *,
        port: int = 0,
        announced: Sequence[str] = (),
        tls: bool = True,
        refused: Counter[str] | None = None,
        bound: Sequence[socket.socket] = (),
    ) -> None:
        """Listen at these IP addresses, at a port or at any (0), if there are no sockets `bound`
        there already. `visible` are the addresses that stand for 0.0.0.0 and ::; `announced` are
        told to others instead of all that. What is refused is counted in `refused`."""
        self._contexts: Contexts | None = make_contexts(identity) if tls else None
        self._listen, self._visible = listen, visible
        self._port, self._announced = port, announced
        self._listeners: list[socket.socket] = list(bound)
        self._again: dict[socket.socket, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._greetings: Greetings[asyncio.Task[None]] = Greetings(MAX_GREETINGS)
        self._refused: Counter[str] = Counter() if refused is None else refused
        self._welcome: Welcome

    async def start(self, welcome: Welcome) -> None:
        """Listen. Raises RunError when that cannot be done."""
        self._welcome = welcome
        for host in () if self._listeners else self._listen:
            try:
                self._listeners.append(tcp_listener(host, self._port))
            except OSError as error:
                where = format_address(host, self._port)
                raise RunError(f"cannot listen at {where} (TCP): {error.strerror}") from None
        for listener in self._listeners:
            listener.setblocking(False)
            self._listen_on(listener)

    def addresses(self) -> list[str]:
        if self._announced:
            return list(self._announced)
        found = [
            address
            for listener in self._listeners
            for address in visible_addresses(listener.getsockname(), self._visible)
        ]
        return list(dict.fromkeys(found))[:MAX_ADDRESSES]

    def may_reach(self, addresses: Sequence[str]) -> bool:
        return bool(addresses)

    def within(self, reach: Reach, addresses: Sequence[str]) -> list[str]:
        return reach.direct(addresses)

    async def dial(
        self, peer: PeerId, addresses: Sequence[str], patience_s: float = DIAL_S
    ) -> Connection:
        """Dial all addresses at once: most are of networks that are not ours, where nobody
        answers."""
        some = addresses[:MAX_ADDRESSES]
        dials = [asyncio.create_task(self._dial(peer, address, patience_s)) for address in some]
        reached: DirectConnection | None = None
        try:
            reached = await _first(dials)
            return reached
        finally:
            for task in dials:
                if not task.cancel() and not task.exception() and task.result() is not reached:
                    task.result().close()  # it was as fast as the first one

    async def close(self) -> None:
        for timer in self._again.values():
            timer.cancel()
        for listener in self._listeners:
            if listener.fileno() >= 0:  # not closed before
                asyncio.get_running_loop().remove_reader(listener)
                listener.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _dial(self, peer: PeerId, address: str, patience_s: float) -> DirectConnection:
        """Connect to one address. Raises RunError or OSError, also when somebody else answers
        there."""
        try:
            host, port = parse_address(address)
        except ValueError as error:
            raise RunError(f"{address!r:.80} is not a direct address: {error}") from None
        tls = None if self._contexts is None else self._contexts.dialing
        _, connection = await asyncio.get_running_loop().create_connection(
            DirectConnection,
            sock=await _connected(host, port, CONNECT_SHARE * patience_s),
            ssl=tls,
            server_hostname="" if tls else None,
            ssl_handshake_timeout=patience_s if tls else None,
            ssl_shutdown_timeout=CLOSE_S if tls else None,
        )
        try:
            connection.peer = peer if tls is None else connection.prove_peer()
            if connection.peer != peer:
                raise RunError(f"{connection.peer} answers at {address}, not {peer}")
            connection.tune()
        except WireError as error:
            connection.abort()
            raise RunError(f"who answers at {address} is not {peer}: {error}") from None
        except (OSError, RunError):
            connection.abort()
            raise
        return connection

    # ------------------------------------------------------------------ being dialed

    def _accept(self, listener: socket.socket) -> None:
        """Take a connection, of which only so many may not have proved yet who they are. Never a
        task: what one that is cancelled has just been given is nobody's."""
        try:
            accepted, address = listener.accept()
        except BlockingIOError:  # whoever dialed has gone again
            return
        except OSError as error:
            log.warning("cannot take a connection: %s", error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            self._again[listener] = loop.call_later(ACCEPT_AGAIN_S, self._listen_on, listener)
            return
        accepted.setblocking(False)
        greeting = self._spawn(self._greet(accepted))
        greeting.add_done_callback(lambda task: accepted.close() if task.cancelled() else None)
        greeting.add_done_callback(self._greetings.done)
        crowded = self._greetings.add(greeting, address[0])
        if crowded is not None:
            self._refused["handshakes"] += 1
            crowded.cancel()

    def _listen_on(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def _greet(self, accepted: socket.socket) -> None:
        tls = None if self._contexts is None else self._contexts.listening
        connection = DirectConnection()
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,  # uvloop returns its TLS protocol, not ours
                accepted,
                ssl=tls,
                ssl_handshake_timeout=GREET_S if tls else None,
                ssl_shutdown_timeout=CLOSE_S if tls else None,
            )
            try:
                connection.peer = ANYBODY if tls is None else connection.prove_peer()
                connection.tune()
            except (OSError, WireError):
                connection.abort()
                raise
        except (OSError, WireError) as error:  # most of the internet knocks at open ports
            log.info("refused a connection: %s", error or type(error).__name__)
        else:
            self._welcome(connection)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of ours; a bug in it reaches the loop's exception handler."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _first(dials: Sequence[asyncio.Task[DirectConnection]]) -> DirectConnection:
    """The first one that succeeds. Raises what the last one raised when none does."""
    error: Exception = RunError("it has no address")
    for dial in asyncio.as_completed(dials):
        try:
            return await dial
        except (OSError, RunError) as failed:
            error = failed
    raise error


async def _connected(host: str, port: int, within_s: float) -> socket.socket:
    """A socket that is connected to where somebody listens. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        connected.setblocking(False)
        async with asyncio.timeout(within_s):
            await asyncio.get_running_loop().sock_connect(connected, (host, port))
    except BaseException:
        connected.close()
        raise
    return connected
