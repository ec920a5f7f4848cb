"""The libp2p daemon of this process, as the others here see it.

Another process may take the place of the one that runs it (`start_again`): with the same identity,
at the same ports where they are free, and with the same streams taken.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hivemind.p2p import P2P
from hivemind.p2p.p2p_daemon_bindings.datastructures import PeerInfo, StreamInfo
from hivemind.proto import p2pd_pb2
from hivemind.utils.multiaddr import Multiaddr

from swarmrt.errors import DirectoryError, RunError
from swarmrt.ids import PeerId
from swarmrt.runtime.access.identity import Identity, new_identity, open_identity
from swarmrt.runtime.daemon.answering import watch_answers
from swarmrt.runtime.daemon.daemon_process import START_S, DaemonProcess
from swarmrt.runtime.daemon.relaying import relays_too_little
from swarmrt.runtime.reach.addresses import host_of, port_of
from swarmrt.runtime.reach.multiaddrs import (
    CIRCUIT,
    is_direct_and_global,
    worth_telling,
)
from swarmrt.runtime.reach.place import (
    Place,
    Standing,
    check_free,
    has_address,
    is_free_for_libp2p,
    own_address,
    standing_of,
)

log = logging.getLogger("swarmrt.daemon")

LOOK_S = 0.2  # between two looks at the daemon's connections
MAX_OWN = 5  # addresses of this machine that are told to others
STARTS = 5  # of a daemon that is to relay
MAX_SEEN = 32  # peers that are looked for again after a new start

OnStream = Callable[[StreamInfo, StreamReader, StreamWriter], Awaitable[None]]


class Daemon:
    """A running daemon. Use `Daemon.start`, and `close` at the end."""

    def __init__(self, identity: Identity, place: Place, standing: Standing) -> None:
        self.identity, self.standing, self._place = identity, standing, place
        self._process: DaemonProcess
        self._own: list[str] = []  # where others see us, the best ones first
        self.relayed: Sequence[str] = ()  # addresses at relays that let others through to us
        self._takes: dict[str, OnStream] = {}  # what is done with a stream, by its protocol
        self._seen: dict[PeerId, list[str]] = {}  # at the other ends of connections, at last

    @classmethod
    async def start(
        cls,
        identity_path: Path | None,
        place: Place,
        bootstrap: Sequence[str],
        standing: Standing | None = None,
    ) -> Daemon:
        """Start a daemon. Without an identity file, the process has a new identity.

        Raises UsageError for a bad identity file or a port that is taken, DirectoryError for a bad
        address, and RunError when the daemon does not start.
        """
        check_free(place)
        for address in bootstrap:
            check_address(address, with_peer=True)
        standing = standing or standing_of(place, bootstrap, own_address)
        identity = new_identity() if identity_path is None else open_identity(identity_path)
        daemon = cls(identity, place, standing)
        try:
            await daemon._start(place, bootstrap)
        except BaseException:
            await daemon.close()
            raise
        return daemon

    async def start_again(self) -> None:
        """Start another process in place of the one that is gone. Raises RunError or OSError when
        that fails; then it may be tried again.

        It joins nobody by itself: those whom it knew may be gone, and it would not start.
        """
        await self._process.close()
        place = self._place
        ports = [port_of(a) for a in self._own if (host := host_of(a)) and has_address(host)]
        if not place.ports.libp2p and ports:
            before = replace(place, ports=replace(place.ports, libp2p=ports[0]))
            place = before if is_free_for_libp2p(before) else place
        elif not is_free_for_libp2p(place):
            raise RunError(f"somebody else listens at its port {place.ports.libp2p}")
        await self._start(place, ())
        self.relayed = ()
        for protocol, take in self._takes.items():
            await self._take(protocol, take)

    @property
    def p2p(self) -> P2P:
        """The client of it that hivemind's parts use: another one after a new start."""
        return self._process.p2p

    @property
    def is_gone(self) -> bool:
        return self._process.is_gone

    @property
    def peer_id(self) -> PeerId:
        return self.identity.peer_id

    def addresses(self) -> list[str]:
        """Return the multiaddrs at which others reach this process, with its id, the best ones
        first."""
        return [*self._own[:MAX_OWN], *self.relayed]

    def hosts(self) -> list[str]:
        """The IP addresses of this machine that others see, or those that are announced."""
        hosts = filter(None, map(host_of, self._own))
        return [h for h in dict.fromkeys(hosts) if has_address(h)]

    def seen(self) -> dict[PeerId, list[str]]:
        """Return whom it was connected to when that was last looked at, and at which multiaddrs."""
        return self._seen

    async def look_again(self) -> bool:
        """Ask where others see this process by now; whether that has changed."""
        before = self._own
        self._own = worth_telling(await self.p2p.get_visible_maddrs(latest=True))
        return self._own != before

    async def connect(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Tell the daemon where a peer is, and connect to it. Raises RunError."""
        await self._process.connect(peer, addresses)

    async def open_stream(self, peer: PeerId, protocol: str) -> tuple[StreamReader, StreamWriter]:
        """A stream to a peer. Raises RunError when the peer or the protocol cannot be reached."""
        return await self._process.open_stream(peer, protocol)

    async def is_relayed(self, peer: PeerId) -> bool:
        """Return whether the daemon has connections to a peer, and all of them through relays."""
        peers = await self.p2p.list_peers()
        found = [info for info in peers if info.peer_id.to_base58() == peer]
        return bool(found) and all(CIRCUIT in str(a) for info in found for a in info.addrs)

    async def wait_for_hole(
        self, peer: PeerId, addresses: Sequence[str], patience_s: float
    ) -> None:
        """Give a connection through a relay time to become a direct one, where that may be.

        The daemons of both ends punch holes into their routers by themselves, once four other hosts
        have seen each of them at one public address. Streams opened after that go straight.
        """
        both = (addresses, self._own)
        if not all(any(map(is_direct_and_global, some)) for some in both):
            return
        end = asyncio.get_running_loop().time() + patience_s
        while await self.is_relayed(peer) and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(LOOK_S)  # the daemon does not say when it has succeeded

    async def take_streams(self, protocol: str, take: OnStream) -> None:
        """Have incoming streams of a protocol taken from now on, after a new start as well. Raises
        RunError."""
        self._takes[protocol] = take
        try:
            await self._take(protocol, take)
        except OSError as error:
            raise RunError(f"the libp2p daemon takes no streams: {error}") from None

    async def watch(self) -> str:
        """Wait until its process ends by itself, and say meanwhile when it does not answer; return
        its last words."""
        ending = asyncio.create_task(self._process.wait())
        asking = asyncio.create_task(watch_answers(self._look_at_peers))
        try:
            await asyncio.wait([ending, asking], return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                await asking  # a bug in it
            return await ending
        finally:
            ending.cancel()
            asking.cancel()

    def stand_still(self, seconds: float) -> None:
        """Let the daemon do nothing for a while. Its sockets are open, and nobody answers."""
        self._process.stand_still(seconds)

    def die(self) -> None:
        """Kill the daemon, as if it had ended by itself."""
        self._process.die()

    async def close(self) -> None:
        """Stop the daemon and remove its sockets. May be called again."""
        if hasattr(self, "_process"):
            await self._process.close()

    async def _start(self, place: Place, bootstrap: Sequence[str]) -> None:
        """Start its process, again where that would relay too little. Raises DirectoryError or
        RunError."""
        for start in range(1, STARTS + 1):
            self._process = await DaemonProcess.start(
                self.identity, place, self.standing, bootstrap
            )
            await self._look()
            if self.standing is not Standing.PUBLIC:
                return
            if not await relays_too_little(self.peer_id, self._own):
                return
            if start < STARTS:
                await self._process.close()
        log.warning("the libp2p daemon of this process relays too little to others to train by it")

    async def _look(self) -> None:
        """Look where others see it. Raises RunError."""
        try:
            async with asyncio.timeout(START_S):
                self._own = worth_telling(await self.p2p.get_visible_maddrs())
        except TimeoutError:
            raise RunError(f"the libp2p daemon did not answer for {START_S:.0f} s") from None

    async def _look_at_peers(self) -> None:
        answer, _, writer = await self._process.ask(type=p2pd_pb2.Request.LIST_PEERS)
        writer.close()
        peers = map(PeerInfo.from_protobuf, answer.peers[:MAX_SEEN])
        self._seen = {PeerId(one.peer_id.to_base58()): list(map(str, one.addrs)) for one in peers}

    async def _take(self, protocol: str, take: OnStream) -> None:
        async with asyncio.timeout(START_S):
            await self.p2p.add_binary_stream_handler(protocol, take)


def check_address(address: str, *, with_peer: bool) -> None:
    """Check that this is a multiaddr. Raises DirectoryError when it is not."""
    example = "/ip4/1.2.3.4/tcp/5678" + ("/p2p/Qm…" if with_peer else "")
    try:
        parsed = Multiaddr(address)
        valid = not with_peer or bool(parsed["p2p"])
    except Exception:  # noqa: BLE001 - its parser raises many kinds
        valid = False
    if not valid:
        raise DirectoryError(f"{address!r} is not an address; one looks like {example}")
