"""A process's place in the network: its identity, its daemon and its view of the directory."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from swarmrt.config import RunConfig
from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.runtime.access.door import GuardedDoor
from swarmrt.runtime.carriers.beacons import Beacons, NumSeats, OnBeacon, one_seat
from swarmrt.runtime.carriers.carriers import Carrier
from swarmrt.runtime.carriers.direct import DirectCarrier
from swarmrt.runtime.carriers.libp2p import Libp2pCarrier
from swarmrt.runtime.daemon.daemon import Daemon, check_address
from swarmrt.runtime.daemon.restarting import keep_up
from swarmrt.runtime.directory.directory import Directory
from swarmrt.runtime.directory.meeting_again import meet_again
from swarmrt.runtime.faults.faults import LinkFaults
from swarmrt.runtime.limits.downlink import Downlink
from swarmrt.runtime.limits.uplink import Uplink
from swarmrt.runtime.links.arriving import arrive
from swarmrt.runtime.peer.causes import cause_of
from swarmrt.runtime.reach.addresses import Reach, host_of
from swarmrt.runtime.reach.listening import Listening
from swarmrt.runtime.reach.multiaddrs import by_peer
from swarmrt.runtime.reach.place import Place, describe, own_address, standing_of
from swarmrt.runtime.reach.relays import Relays
from swarmrt.trust.papers import Papers

log = logging.getLogger("swarmrt.network")

T = TypeVar("T")

LOOPBACK = Place()


@dataclass
class Network:
    daemon: Daemon
    directory: Directory
    relays: Relays
    place: Place = LOOPBACK
    faults: LinkFaults | None = None
    join: Sequence[str] = ()  # multiaddrs, by the user's own word
    papers: Papers | None = None  # of the run that this process belongs to
    barred: set[PeerId] = field(default_factory=set)  # who was turned out of it
    refused: Counter[str] = field(default_factory=Counter)  # what this process has not taken
    uplink: Uplink | None = None  # what links may use of it, where that is bounded
    downlink: Downlink | None = None  # likewise
    listening: Listening = field(default_factory=Listening)  # where ports were asked for

    @property
    def me(self) -> PeerId:
        return self.daemon.peer_id

    def door(self, config: RunConfig, *, is_trainer: bool = False) -> GuardedDoor:
        """Return the door of this process."""
        assert self.papers is not None, "this process is of no run"
        return GuardedDoor(
            self.papers,
            self.me,
            num_stages=config.num_stages,
            is_trainer=is_trainer,
            is_open=config.run.access == "open",
            barred=self.barred,
            refused=self.refused,
        )

    def carriers(self, link: Literal["auto", "direct", "libp2p"]) -> list[Carrier]:
        """The carriers that links may use, the preferred one first."""
        carriers: list[Carrier] = []
        place, daemon = self.place, self.daemon
        if link != "libp2p":
            carriers.append(
                DirectCarrier(
                    daemon.identity,
                    place.hosts,
                    daemon.hosts(),
                    port=place.ports.direct,
                    announced=place.announced_direct,
                    refused=self.refused,
                    bound=self.listening.direct,
                )
            )
        if link != "direct":
            carriers.append(Libp2pCarrier(daemon))
        return carriers

    def beacons(self, on_beacon: OnBeacon, num_seats: NumSeats = one_seat) -> Beacons:
        """Sockets for beacons, where links listen too; a peer may beacon for `num_seats` of it."""
        return Beacons(
            self.place.hosts,
            self.daemon.hosts(),
            on_beacon,
            self.faults,
            self.reach,
            self.refused,
            port=self.place.ports.udp,
            announced=self.place.announced_udp,
            bound=self.listening.udp,
            num_seats=num_seats,
        )

    @property
    def reach(self) -> Reach:
        """The addresses of others that are dialed from here."""
        place = self.place
        told = [one.host for one in place.announced] or self.daemon.hosts()
        joined = filter(None, map(host_of, self.join))
        return Reach([*place.hosts, *told, *joined])

    async def keep_up(self, known: Callable[[], Mapping[PeerId, Sequence[str]]] = dict) -> None:
        """Start the daemon again whenever it ends by itself, and find the others again. Raises
        RunError when it is gone for good.

        `known` returns where others are, beside those who were connected to it.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                meeting: asyncio.Task[None] | None = None

                async def returned() -> None:
                    nonlocal meeting
                    if meeting is not None:
                        meeting.cancel()
                    others = {**known(), **self.daemon.seen(), **by_peer(self.join)}
                    await self.directory.go_on()
                    await self.relays.start_anew()
                    meeting = tasks.create_task(meet_again(self.daemon, self.directory, others))

                await keep_up(self.daemon, returned)
        except BaseExceptionGroup as group:
            if group.split(RunError)[1] is not None:
                raise
            raise RunError(cause_of(group)) from None

    async def while_up(self, wait: Coroutine[Any, Any, T]) -> T:
        """Wait for what may take long, and keep the daemon up meanwhile. Raises RunError when it is
        gone for good."""
        waiting, keeping = asyncio.create_task(wait), asyncio.create_task(self.keep_up())
        try:
            await asyncio.wait((waiting, keeping), return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                await keeping
            return await waiting
        finally:
            for task in (waiting, keeping):
                task.cancel()
            await asyncio.gather(waiting, keeping, return_exceptions=True)

    def describe(self) -> str:
        """Say for its user where this process can be reached."""
        return describe(self.place, self.daemon.standing, self.daemon.hosts())


@asynccontextmanager
async def open_network(
    join: Sequence[str],
    place: Place = LOOPBACK,
    identity: Path | None = None,
    faults: LinkFaults | None = None,
    papers: Papers | None = None,
    *,
    private: bool = False,
    remembered: Sequence[str] = (),
    waiting: Callable[[str], None] | None = None,
    link_bytes_per_s: float | None = None,
    down_bytes_per_s: float | None = None,
    with_links: bool = False,
) -> AsyncIterator[Network]:
    """Start a daemon and a directory node, and stop both at the end.

    `papers` say of which run this process is; the directory of a private one is closed to others.
    `remembered` are addresses at which others once were; with `waiting` a directory that does not
    answer is waited for. `link_bytes_per_s` bounds what all links send together, and
    `down_bytes_per_s` what they read. Whoever is to have links holds the ports that it asks for,
    `with_links`, from the beginning. Raises
    DirectoryError when no address of `join` answers, UsageError when a port is taken.
    """
    for address in join:
        check_address(address, with_peer=True)
    standing = standing_of(place, join, own_address)
    barred: set[PeerId] = set()

    async def enter(addresses: Sequence[str]) -> tuple[Daemon, Directory]:
        daemon = await Daemon.start(identity, place, addresses, standing)
        try:
            return daemon, await Directory.open(
                daemon, addresses, papers, private=private, is_barred=barred.__contains__
            )
        except BaseException:
            await daemon.close()
            raise

    listening = Listening.at(place) if with_links else Listening()
    try:
        daemon, directory = await arrive(enter, join, remembered, waiting)
    except BaseException:
        listening.close()
        raise
    if faults is not None:
        faults.on_daemon(daemon.stand_still, daemon.die)
    relays = Relays(daemon, join, directory.meet)
    try:
        await relays.start()
        uplink = None if link_bytes_per_s is None else Uplink(link_bytes_per_s)
        network = Network(daemon, directory, relays, place, faults, join, papers, barred)
        network.uplink = uplink
        network.downlink = None if down_bytes_per_s is None else Downlink(down_bytes_per_s)
        network.listening = listening
        yield network
    finally:
        await relays.close()
        await directory.close()
        await daemon.close()
        listening.close()
