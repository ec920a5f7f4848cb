"""Beacons over UDP: a peer's load and progress overtake whatever waits on its link.

Each end of a link offers a key and its UDP addresses in its hello; the other end seals with it what
it sends. Every beacon is answered. While the answers fail to come, because UDP is blocked, say,
beacons go over the link as well, and over UDP still, in case it is not blocked for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import asyncio_dgram
import torch

from swarmrt.errors import RunError, WireError
from swarmrt.ids import PeerId
from swarmrt.messages import Beacon, Message
from swarmrt.runtime.faults.faults import LinkFaults
from swarmrt.runtime.limits.rates import Bucket, Rate
from swarmrt.runtime.reach.addresses import (
    MAX_ADDRESSES,
    Reach,
    format_address,
    parse_address,
    visible_addresses,
)
from swarmrt.runtime.reach.listening import one_of_each_kind, udp_socket
from swarmrt.wire.datagrams import Key, key_name
from swarmrt.wire.kinds import Hello

log = logging.getLogger("swarmrt.beacons")

UNANSWERED = 2  # beacons of each seat in a row, and the link is used as well
HOPELESS = 16  # unanswered ones in a row: from then on only each 16th is sent by UDP
WORDS = Rate(64, 20)  # datagrams of one seat that are taken: ten times what it sends
MAX_QUEUED = 1024  # datagrams on their way out: more are lost, as datagrams may be

Address = tuple[str, int]
OnBeacon = Callable[[PeerId, Message, Sequence[torch.Tensor]], None]
NumSeats = Callable[[PeerId], int]


def one_seat(_: PeerId) -> int:
    """Return how many seats a peer may beacon for, where nothing else is known of it."""
    return 1


@dataclass(eq=False)
class Agreement:
    """The keys and addresses that were agreed on by one link."""

    peer: PeerId
    ours: Key = field(default_factory=Key.new)  # for what comes from there
    received: int = 0  # the highest counter that has come
    theirs: Key | None = None  # for what goes there
    addresses: Sequence[Address] = ()
    sent: int = 0
    answered: int = -UNANSWERED
    seats: set[int] = field(default_factory=set)  # of this process, that beacon there, by stage
    is_open: bool = False  # the other end has said hello, and may send
    words: Bucket = field(default_factory=lambda: Bucket(WORDS, 0.0))


class Beacons:
    """The UDP sockets of a process. `start` first, `close` at the end."""

    def __init__(
        self,
        listen: Sequence[str],
        visible: Sequence[str],
        on_beacon: OnBeacon,
        faults: LinkFaults | None = None,
        reach: Reach | None = None,
        refused: Counter[str] | None = None,
        *,
        port: int = 0,
        announced: Sequence[str] = (),
        bound: Sequence[socket.socket] = (),
        num_seats: NumSeats = one_seat,
    ) -> None:
        """Listen at these IP addresses, at a port or at any (0), if there are no sockets `bound`
        there already. `visible` are the addresses that stand for 0.0.0.0 and ::; `announced` are
        told to others instead of all that. Without
        `reach` datagrams are sent to any address. What is refused is counted in `refused`. Of
        each peer as many are taken as `num_seats` of it send."""
        self._listen, self._visible, self._reach = listen, visible, reach
        self._port, self._announced, self._bound = port, announced, list(bound)
        self._refused: Counter[str] = Counter() if refused is None else refused
        self._on_beacon, self._faults, self._num_seats = on_beacon, faults, num_seats
        self._sockets: dict[socket.AddressFamily, asyncio_dgram.aio.DatagramServer] = {}
        self._by_key: dict[bytes, Agreement] = {}
        self._by_peer: dict[PeerId, list[Agreement]] = {}  # the newest last
        self._outgoing: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue(MAX_QUEUED)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen. Raises RunError when that cannot be done."""
        for host in () if self._bound else one_of_each_kind(self._listen):
            try:
                self._bound.append(udp_socket(host, self._port))
            except OSError as error:
                where = format_address(host, self._port)
                raise RunError(f"cannot listen at {where} (UDP): {error.strerror}") from None
        for bound in self._bound:
            stream = await asyncio_dgram.from_socket(bound)
            self._sockets[bound.family] = stream
            self._tasks.append(asyncio.create_task(self._receive(stream)))
        self._tasks.append(asyncio.create_task(self._send_on()))

    def addresses(self) -> list[str]:
        if self._announced:
            return list(self._announced)
        found = [
            address
            for stream in self._sockets.values()
            for address in visible_addresses(stream.sockname, self._visible)
        ]
        return found[:MAX_ADDRESSES]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in self._sockets.values():
            stream.close()

    # ------------------------------------------------------------------ agreements

    def offer(self, peer: PeerId) -> Agreement:
        """Return what the hello of a new link to this peer offers; `forget` it when the link
        ends."""
        agreement = Agreement(peer)
        self._by_key[agreement.ours.name] = agreement
        return agreement

    def agree(self, agreement: Agreement, hello: Hello, host: str | None = None) -> None:
        """The other end's hello has come, from this IP address if that is known: there it may take
        beacons, and elsewhere if that is within reach. Raises WireError for nonsense in it."""
        agreement.is_open = True
        if not hello.beacon_key:
            return  # it takes none
        if len(hello.beacon_addresses) > MAX_ADDRESSES:
            raise WireError(f"a hello with {len(hello.beacon_addresses)} addresses for beacons")
        try:
            key = Key(bytes.fromhex(hello.beacon_key))
            addresses = [parse_address(address) for address in hello.beacon_addresses]
        except ValueError as error:
            raise WireError(f"a hello with nonsense about beacons: {error}") from None
        agreement.theirs = key
        agreement.addresses = [a for a in addresses if a[0] == host or self._is_within_reach(a[0])]
        self._refused["addresses"] += len(addresses) - len(agreement.addresses)
        self._by_key[key.name] = agreement
        self._by_peer.setdefault(agreement.peer, []).append(agreement)

    def _is_within_reach(self, host: str) -> bool:
        return self._reach is None or self._reach.allows(host)

    def forget(self, agreement: Agreement) -> None:
        for key in (agreement.ours, agreement.theirs):
            if key is not None:
                self._by_key.pop(key.name, None)
        agreements = self._by_peer.get(agreement.peer, [])
        if agreement in agreements:
            agreements.remove(agreement)
        if not agreements:
            self._by_peer.pop(agreement.peer, None)

    # ------------------------------------------------------------------ sending

    def send(self, peer: PeerId, beacon: Beacon) -> bool:
        """Send it; whether it will very likely arrive. Else it has to go by the link as well."""
        agreements = self._by_peer.get(peer)
        if not agreements or self._is_disturbed(peer):
            return False
        agreement = agreements[-1]
        assert agreement.theirs is not None
        agreement.sent += 1
        agreement.seats.add(beacon.stage)
        unanswered = agreement.sent - agreement.answered
        if unanswered <= HOPELESS or not agreement.sent % HOPELESS:
            datagram = agreement.theirs.seal(agreement.sent, beacon)
            for address in agreement.addresses:
                self._queue(datagram, address)
        return unanswered <= UNANSWERED * len(agreement.seats)

    def _is_disturbed(self, peer: PeerId) -> bool:
        faults = self._faults
        return faults is not None and (faults.is_cut(peer) or bool(faults.slow_s(peer)))

    def _queue(self, datagram: bytes, address: Address) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # lost
            self._outgoing.put_nowait((datagram, address))

    async def _send_on(self) -> None:
        while True:
            datagram, address = await self._outgoing.get()
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            if (stream := self._sockets.get(family)) is not None:
                try:
                    await stream.send(datagram, address)
                except OSError as error:
                    log.debug("a beacon to %s was not sent: %s", address[0], error)

    # ------------------------------------------------------------------ receiving

    async def _receive(self, stream: asyncio_dgram.aio.DatagramServer) -> None:
        """Take what comes. The loop reads up to a hundred in one turn, and all of them are taken in
        the next: no more ever wait, and what does not fit the socket is lost."""
        while True:
            try:
                datagram, address = await stream.recv()
            except OSError as error:  # of one that was sent, to where nobody is
                log.debug("UDP: %s", error)
                continue
            self._received(datagram, address[:2])

    def _received(self, datagram: bytes, address: Address) -> None:
        """Take a datagram. Anybody may send anything here."""
        agreement = self._by_key.get(key_name(datagram) or b"")
        if agreement is None or not agreement.is_open or self._is_disturbed(agreement.peer):
            return
        is_ours = datagram.startswith(agreement.ours.name)
        key = agreement.ours if is_ours else agreement.theirs
        assert key is not None
        try:
            counter, message = key.open(datagram)
        except WireError as error:
            log.debug("ignoring a datagram from %s: %s", address[0], error)
            return
        if not is_ours:
            if message is None and agreement.answered < counter <= agreement.sent:
                agreement.answered = counter
                agreement.addresses = (address,)  # of those that it announced, this one answers
        elif isinstance(message, Beacon) and counter > agreement.received:
            its_share = 1 / self._num_seats(agreement.peer)
            if not agreement.words.take(its_share, asyncio.get_running_loop().time()):
                self._refused["datagrams"] += 1
                return
            agreement.received = counter
            self._queue(key.seal(counter, None), address)
            self._on_beacon(agreement.peer, message, ())
