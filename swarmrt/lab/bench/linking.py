"""The throughput of links, beside what they are made of, between two processes on loopback.

Six ways of talking, measured in turn within each round, because the machine has other things to do:

    socket         a blocking loop of `sendall` and `recv_into`
    ssl            the same over Python's `ssl` sockets
    direct_plain   a direct link without TLS, which exists for this measurement only
    direct_tls     a direct link
    stream         the libp2p daemon's own persistent stream, written and read as it comes
    libp2p         a libp2p link

and, once, links of one and of four connections over a path on which each has its limit (`narrow`).
Bulk is messages of 16 MiB. A round trip is that of 1 KiB each way, alone, and while bulk flows on
the same connection in the direction of the answer. The blocking loops do the least that gives the
same service: bulk goes out in the chunks that links use, and an answer goes out between two.

Each end has a core of its own, as on two machines. Where the scheduler puts both on one core, no
core has to be woken up, and in a virtual machine that alone is a difference of ten times.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import select
import socket
import ssl
import statistics
import struct
import threading
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Any

import torch
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.lab.bench.streams import bytes_per_s
from swarmrt.messages import Finish, Message, Part
from swarmrt.runtime.access.door import UnguardedDoor
from swarmrt.runtime.carriers.carriers import Carrier
from swarmrt.runtime.carriers.certificates import Contexts, make_contexts
from swarmrt.runtime.carriers.direct import DirectCarrier
from swarmrt.runtime.carriers.libp2p import Libp2pCarrier
from swarmrt.runtime.daemon.daemon import Daemon
from swarmrt.runtime.directory.network import LOOPBACK
from swarmrt.runtime.links.links import Links
from swarmrt.wire.frames import CHUNK_BYTES

MESSAGE_BYTES = 16 << 20
CONTROL_BYTES = 1 << 10
STREAM = "swarmrt-bench/1"
BULK, PING, BUSY = b"b", b"p", b"s"  # what a bare connection is for, in its first byte
LENGTH = struct.Struct(">I")
PATIENCE_S = 120.0  # for anything here

Rates = dict[str, float]


# ---------------------------------------------------------------------- bare sockets


def _receive(tcp: socket.socket, buffer: memoryview) -> None:
    """Fill the buffer. Raises ConnectionError at the end of the stream."""
    got = 0
    while got < len(buffer):
        size = tcp.recv_into(buffer[got:])
        if not size:
            raise ConnectionError("the other end is gone")
        got += size


def _serve_sockets(listener: socket.socket, tls: ssl.SSLContext | None) -> None:
    """Serve one connection after the other, until the listener is closed."""
    while True:
        try:
            tcp, _ = listener.accept()
        except OSError:
            return
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with tls.wrap_socket(tcp, server_side=True) if tls else tcp as tcp:
            with contextlib.suppress(OSError):  # its end is how a measurement ends
                _serve_socket(tcp)


def _serve_socket(tcp: socket.socket) -> None:
    buffer = memoryview(bytearray(MESSAGE_BYTES))
    control = buffer[:CONTROL_BYTES]
    match tcp.recv(1):
        case b"b":
            while True:
                _receive(tcp, buffer)
                tcp.sendall(b"x")
        case b"p":
            while True:
                _receive(tcp, control)
                tcp.sendall(control)
        case b"s":
            chunk = LENGTH.pack(CHUNK_BYTES) + bytes(CHUNK_BYTES)
            while True:
                tcp.sendall(chunk)
                pending = isinstance(tcp, ssl.SSLSocket) and tcp.pending()
                if pending or select.select([tcp], [], [], 0)[0]:
                    _receive(tcp, control)
                    tcp.sendall(LENGTH.pack(CONTROL_BYTES) + control)


def _socket_bulk(tcp: socket.socket, messages: int) -> float:
    """Bytes a second."""
    data, answer = bytearray(MESSAGE_BYTES), memoryview(bytearray(1))
    tcp.sendall(BULK)
    for number in range(messages + 1):  # the first one widens the window
        if number == 1:
            _receive(tcp, answer)
            started = time.perf_counter()
        tcp.sendall(data)
    for _ in range(messages):
        _receive(tcp, answer)
    return messages * MESSAGE_BYTES / (time.perf_counter() - started)


def _socket_ping(tcp: socket.socket, times: int) -> float:
    """Return the seconds of a round trip."""
    control = memoryview(bytearray(CONTROL_BYTES))
    tcp.sendall(PING)
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        tcp.sendall(control)
        _receive(tcp, control)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _socket_busy_ping(tcp: socket.socket, times: int) -> float:
    """Return the seconds of a round trip while the socket is busy."""
    chunk = memoryview(bytearray(CHUNK_BYTES))
    length = memoryview(bytearray(LENGTH.size))
    tcp.sendall(BUSY)
    taken = []
    for number in range(times + times // 10):  # the first ones come before the flow is steady
        started = time.perf_counter()
        tcp.sendall(chunk[:CONTROL_BYTES])
        while True:
            _receive(tcp, length)
            (size,) = LENGTH.unpack(length)
            _receive(tcp, chunk[:size])
            if size == CONTROL_BYTES:
                break
        if number >= times // 10:
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


# ---------------------------------------------------------------------- links


PING_MESSAGE = Finish("ping" + "." * (CONTROL_BYTES - 4))


@dataclass
class Pings:
    """Round trips, one after the other."""

    times: int
    started: float = 0.0
    taken_s: list[float] = field(default_factory=list)


class Talk:
    """An end of links, which answers what the other end asks for."""

    def __init__(self, carrier: Carrier) -> None:
        self.arrived: asyncio.Queue[str] = asyncio.Queue()  # bounded by what is asked for
        self.bulk = torch.zeros(MESSAGE_BYTES, dtype=torch.uint8)
        self.is_busy = False  # whether bulk is to go on
        self._pings: Pings | None = None  # that are under way
        self.links = Links(
            [carrier],
            UnguardedDoor("bench"),
            2 * MESSAGE_BYTES,
            on_message=self._on_message,
            on_lost=lambda peer, reason: self.arrived.put_nowait(f"lost: {reason}"),
            on_send_failed=lambda peer, message: None,  # the loss is reported as well
        )

    def send_bulk(self, to: PeerId, answer: str) -> None:
        self.links.send(to, Part(0, 0, 0, 0, answer == "more"), [self.bulk])

    def _on_message(
        self, sender: PeerId, message: Message, tensors: Sequence[torch.Tensor]
    ) -> None:
        match message:
            case Part(summed=True):  # of a flow that goes on
                if self.is_busy:
                    self.links.send(sender, Finish("more"))
            case Part():
                self.links.send(sender, Finish("got it"))
            case Finish("more"):
                self.send_bulk(sender, "more")
            case Finish(reason) if reason.startswith("ping"):
                self.links.send(sender, Finish("pong" + reason[4:]))
            case Finish(reason) if reason.startswith("pong"):
                self._ponged(sender)
            case Finish(reason):
                self.arrived.put_nowait(reason)

    def _ping(self, to: PeerId) -> None:
        assert self._pings is not None
        self._pings.started = time.perf_counter()
        self.links.send(to, PING_MESSAGE)

    def _ponged(self, sender: PeerId) -> None:
        """Go on as a process does: with what has come, it decides and sends at once."""
        assert self._pings is not None
        self._pings.taken_s.append(time.perf_counter() - self._pings.started)
        if len(self._pings.taken_s) < self._pings.times:
            self._ping(sender)
        else:
            self.arrived.put_nowait("pong")

    async def answer(self) -> None:
        """Wait for one. Raises RunError when the other end is gone."""
        async with asyncio.timeout(PATIENCE_S):
            what = await self.arrived.get()
        if what.startswith("lost"):
            raise RunError(f"a link of the measurement was {what}")

    async def measure_bulk(self, to: PeerId, messages: int) -> float:
        """Bytes a second."""
        self.send_bulk(to, "got it")
        await self.answer()
        started = time.perf_counter()
        for _ in range(messages):
            self.send_bulk(to, "got it")
        for _ in range(messages):
            await self.answer()
        return messages * MESSAGE_BYTES / (time.perf_counter() - started)

    async def measure_ping(self, to: PeerId, times: int) -> float:
        """Return the seconds of a round trip."""
        self._pings = Pings(times + times // 10)
        self._ping(to)
        await self.answer()
        return statistics.median(self._pings.taken_s[times // 10 :])

    async def measure_busy_ping(self, to: PeerId, times: int) -> float:
        """Return the seconds of a round trip while a payload is under way."""
        self.is_busy = True
        for _ in range(3):  # so that there is always one on its way
            self.links.send(to, Finish("more"))
        median = await self.measure_ping(to, times)
        self.is_busy = False
        await self.measure_ping(to, 20)
        return median


@asynccontextmanager
async def _links(daemon: Daemon) -> AsyncIterator[dict[str, Talk]]:
    """Open links by way, ready to be dialed."""
    talks = {
        "direct_plain": Talk(DirectCarrier(daemon.identity, tls=False)),
        "direct_tls": Talk(DirectCarrier(daemon.identity)),
        "libp2p": Talk(Libp2pCarrier(daemon)),
    }
    try:
        for talk in talks.values():
            await talk.links.start()
        yield talks
    finally:
        for talk in talks.values():
            await talk.links.close()


# ---------------------------------------------------------------------- the daemon's stream


async def _serve_stream(info: StreamInfo, reader: StreamReader, writer: StreamWriter) -> None:
    """Say so whenever as much as a message has come; send back what is less."""
    got = 0
    while data := await reader.read(1 << 20):
        if not got and len(data) == CONTROL_BYTES:
            writer.write(data)
            continue
        got += len(data)
        if got >= MESSAGE_BYTES:
            got -= MESSAGE_BYTES
            writer.write(b"x")
    writer.close()


async def _stream_bulk(reader: StreamReader, writer: StreamWriter, messages: int) -> float:
    """Bytes a second."""
    data = memoryview(bytearray(MESSAGE_BYTES))

    async def send(number: int) -> None:
        for _ in range(number):
            for start in range(0, MESSAGE_BYTES, CHUNK_BYTES):
                writer.write(data[start : start + CHUNK_BYTES])
                await writer.drain()

    await send(1)
    await reader.readexactly(1)
    started = time.perf_counter()
    await send(messages)
    await reader.readexactly(messages)
    return messages * MESSAGE_BYTES / (time.perf_counter() - started)


async def _stream_ping(reader: StreamReader, writer: StreamWriter, times: int) -> float:
    """Return the seconds of a round trip."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        writer.write(bytes(CONTROL_BYTES))
        await reader.readexactly(CONTROL_BYTES)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


# ---------------------------------------------------------------------- the two processes


def _other_end(pipe: Pipe, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Run everything that answers, until the pipe is closed."""

    async def main() -> None:
        daemon = await Daemon.start(None, LOOPBACK, [])
        listeners = {"socket": socket.create_server(("127.0.0.1", 0))}
        listeners["ssl"] = socket.create_server(("127.0.0.1", 0))
        contexts = {"socket": None, "ssl": make_contexts(daemon.identity).listening}
        try:
            _take_core(1)
            for way, listener in listeners.items():
                serving = (listener, contexts[way])
                threading.Thread(target=_serve_sockets, args=serving, daemon=True).start()
            await daemon.p2p.add_binary_stream_handler(STREAM, _serve_stream)
            async with _links(daemon) as talks:
                addresses: dict[str, Any] = {
                    way: talk.links.addresses("direct") or talk.links.addresses("libp2p")
                    for way, talk in talks.items()
                }
                ports = {way: listener.getsockname() for way, listener in listeners.items()}
                pipe.send((daemon.peer_id, addresses, ports))
                with contextlib.suppress(EOFError):
                    await asyncio.to_thread(pipe.recv)
        finally:
            await daemon.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def measure(
    rounds: int, messages: int, pings: int, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> dict[str, float]:
    """Medians over the rounds: GB/s and milliseconds by way, and the ratios between ways.

    Raises RunError when an end is lost.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    other = context.Process(target=_other_end, args=(theirs, new_loop))
    other.start()
    theirs.close()
    try:
        if not ours.poll(PATIENCE_S):
            raise RunError("the other process of the measurement did not come up")
        peer, addresses, ports = ours.recv()
        with asyncio.Runner(loop_factory=new_loop) as runner:
            found = runner.run(_rounds(peer, addresses, ports, rounds, messages, pings))
    finally:
        ours.close()
        other.join(PATIENCE_S)
        other.kill()
    return _summary(found)


async def _rounds(
    peer: PeerId,
    addresses: dict[str, list[str]],
    ports: dict[str, tuple[str, int]],
    rounds: int,
    messages: int,
    pings: int,
) -> list[Rates]:
    daemon = await Daemon.start(None, LOOPBACK, [])
    before = _take_core(0)
    try:
        async with _links(daemon) as talks:
            for way, talk in talks.items():
                talk.links.know(peer, {"libp2p" if way == "libp2p" else "direct": addresses[way]})
            await daemon.connect(peer, addresses["libp2p"])
            reader, writer = await daemon.open_stream(peer, STREAM)
            contexts = make_contexts(daemon.identity)
            found = []
            for _ in range(rounds):
                rates: Rates = {}
                for way in ("socket", "ssl"):
                    rates |= await asyncio.to_thread(
                        _measure_sockets, way, ports[way], contexts, messages, pings
                    )
                for way, talk in talks.items():
                    rates[f"{way}_bytes_per_s"] = await talk.measure_bulk(peer, messages)
                    rates[f"{way}_rtt_s"] = await talk.measure_ping(peer, pings)
                    rates[f"{way}_rtt_under_bulk_s"] = await talk.measure_busy_ping(peer, pings)
                rates["stream_bytes_per_s"] = await _stream_bulk(reader, writer, messages)
                rates["stream_rtt_s"] = await _stream_ping(reader, writer, pings)
                found.append(rates)
            writer.close()
            narrow = {
                f"narrow_{number}_bytes_per_s": await bytes_per_s(daemon.identity, number)
                for number in (1, 4)
            }
            return [rates | narrow for rates in found]
    finally:
        os.sched_setaffinity(0, before)
        await daemon.close()


def _take_core(number: int) -> set[int]:
    """Run this thread, and those that it starts, on one core; where it could run before. The
    daemon, which is there already, runs where it likes."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[number % len(cores)]})
    return cores


def _measure_sockets(
    way: str, port: tuple[str, int], contexts: Contexts, messages: int, pings: int
) -> Rates:
    def connect() -> socket.socket:
        tcp = socket.create_connection(port)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return contexts.dialing.wrap_socket(tcp) if way == "ssl" else tcp

    rates = {}
    with connect() as tcp:
        rates[f"{way}_bytes_per_s"] = _socket_bulk(tcp, messages)
    with connect() as tcp:
        rates[f"{way}_rtt_s"] = _socket_ping(tcp, pings)
    with connect() as tcp:
        rates[f"{way}_rtt_under_bulk_s"] = _socket_busy_ping(tcp, pings)
    return rates


# By name: what is put over what. Each round gives a ratio, because what else the machine does
# differs more between rounds than within one.
RATIOS = {
    "direct_plain_over_socket": ("direct_plain_bytes_per_s", "socket_bytes_per_s"),
    "direct_tls_over_ssl_loop": ("direct_tls_bytes_per_s", "ssl_bytes_per_s"),
    "libp2p_over_daemon_stream": ("libp2p_bytes_per_s", "stream_bytes_per_s"),
    "direct_tls_over_libp2p": ("direct_tls_bytes_per_s", "libp2p_bytes_per_s"),
    "direct_plain_rtt_over_socket": ("direct_plain_rtt_s", "socket_rtt_s"),
    "direct_rtt_over_socket": ("direct_tls_rtt_s", "socket_rtt_s"),
    "direct_rtt_over_ssl_loop": ("direct_tls_rtt_s", "ssl_rtt_s"),
    "direct_plain_rtt_under_bulk_over_socket": (
        "direct_plain_rtt_under_bulk_s",
        "socket_rtt_under_bulk_s",
    ),
    "direct_rtt_under_bulk_over_socket": ("direct_tls_rtt_under_bulk_s", "socket_rtt_under_bulk_s"),
    "direct_rtt_under_bulk_over_ssl_loop": (
        "direct_tls_rtt_under_bulk_s",
        "ssl_rtt_under_bulk_s",
    ),
    "narrow_4_streams_over_1": ("narrow_4_bytes_per_s", "narrow_1_bytes_per_s"),
    "libp2p_rtt_over_daemon_stream": ("libp2p_rtt_s", "stream_rtt_s"),
}


def _summary(found: Sequence[Rates]) -> dict[str, float]:
    medians = {name: statistics.median(rates[name] for rates in found) for name in found[0]}
    ratios = {
        name: statistics.median(rates[above] / rates[below] for rates in found)
        for name, (above, below) in RATIOS.items()
    }
    return medians | ratios
