"""A process's place in the network: its identity, its daemon and its view of the directory."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from swarmrt.config import RunConfig
from swarmrt.errors import DirectoryError
from swarmrt.ids import PeerId, RunId
from swarmrt.runtime.access.door import GuardedDoor
from swarmrt.runtime.carriers.beacons import Beacons, OnBeacon
from swarmrt.runtime.carriers.carriers import Carrier
from swarmrt.runtime.carriers.direct import DirectCarrier
from swarmrt.runtime.carriers.libp2p import Libp2pCarrier
from swarmrt.runtime.daemon.daemon import Daemon, check_address
from swarmrt.runtime.directory.directory import Directory
from swarmrt.runtime.faults.faults import LinkFaults
from swarmrt.runtime.limits.uplink import Uplink
from swarmrt.runtime.links.arriving import SAY_S, arrive
from swarmrt.runtime.links.links import Links
from swarmrt.runtime.reach.addresses import Reach, host_of
from swarmrt.runtime.reach.place import Place, describe, own_address, standing_of
from swarmrt.runtime.reach.relays import Relays
from swarmrt.trust.papers import Papers
from swarmrt.trust.statements import Age, Published

log = logging.getLogger("swarmrt.network")

LOOPBACK = Place()
LOOK_S, MAX_LOOK_S = 1.0, 15.0  # between two looks for a run that is not there
LOOK_SHARE = 1 / 60  # of the time that it has been waited for
MOST_WAITS = 8  # times `links.refresh_s`, between two looks at a stage where nothing changes


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

    @property
    def me(self) -> PeerId:
        return self.daemon.peer_id

    def door(
        self,
        config: RunConfig,
        *,
        stage: int | None = None,
        is_trainer: bool = False,
    ) -> GuardedDoor:
        """Return the door of this process, which serves that stage, if any."""
        assert self.papers is not None, "this process is of no run"
        return GuardedDoor(
            self.papers,
            self.me,
            stage=stage,
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
                )
            )
        if link != "direct":
            carriers.append(Libp2pCarrier(daemon))
        return carriers

    def beacons(self, on_beacon: OnBeacon) -> Beacons:
        """Sockets for beacons, where links listen too."""
        return Beacons(
            self.place.hosts,
            self.daemon.hosts(),
            on_beacon,
            self.faults,
            self.reach,
            self.refused,
            port=self.place.ports.udp,
            announced=self.place.announced_udp,
        )

    @property
    def reach(self) -> Reach:
        """The addresses of others that are dialed from here."""
        place = self.place
        told = [one.host for one in place.announced] or self.daemon.hosts()
        joined = filter(None, map(host_of, self.join))
        return Reach([*place.hosts, *told, *joined])

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
    max_mbps: float | None = None,
) -> AsyncIterator[Network]:
    """Start a daemon and a directory node, and stop both at the end.

    `papers` say of which run this process is; the directory of a private one is closed to others.
    `remembered` are addresses at which others once were; with `waiting` a directory that does not
    answer is waited for. `max_mbps` bounds what links send, in megabits a second. Raises
    DirectoryError when no address of `join` answers.
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

    daemon, directory = await arrive(enter, join, remembered, waiting)
    if faults is not None:
        faults.on_daemon(daemon.stand_still)
    relays = Relays(daemon, join, directory.meet)
    try:
        await relays.start()
        uplink = None if max_mbps is None else Uplink(max_mbps * 1e6 / 8)
        network = Network(daemon, directory, relays, place, faults, join, papers, barred)
        network.uplink = uplink
        yield network
    finally:
        await relays.close()
        await directory.close()
        await daemon.close()


async def find_run(
    directory: Directory,
    run: RunId,
    *,
    wait: bool,
    newer_than: Age = (0, -1),
    say: Callable[[str], None] = log.warning,
) -> Published:
    """Return the run's record; with `wait`, as soon as it is published. Raises DirectoryError.

    One that is older than `newer_than`, which was seen before, is that of a trainer of the past.
    Who waits also waits for a directory that does not answer, and is told what for: `say` is called
    at once, and again from time to time.
    """
    said_at = -math.inf
    began_at = time.monotonic()
    while True:
        record = await (published_run(directory, run, say) if wait else directory.find_run(run))
        if record is not None and record.age >= newer_than:
            return record
        if not wait:
            raise DirectoryError(
                await directory.why_clocks_hide()
                or f"{_why_not_found(run, record)}; start it with `swarmrt train`, or "
                "pass --wait to serve it as soon as it is published"
            )
        if time.monotonic() - said_at >= SAY_S:
            said_at = time.monotonic()
            why = await directory.why_clocks_hide() or _why_not_found(run, record)
            say(f"waiting for run {run}: {why}; it is looked for again and again")
        await asyncio.sleep(_pause_s(began_at))  # the directory cannot be subscribed to


async def published_run(
    directory: Directory, run: RunId, say: Callable[[str], None] = log.warning
) -> Published | None:
    """Return what the directory has of a run, None if that is nothing, as soon as it answers; `say`
    is told now and then that it does not."""
    began_at, said_at = time.monotonic(), -math.inf
    while True:
        try:
            return await directory.find_run(run)
        except DirectoryError as error:
            if time.monotonic() - said_at >= SAY_S:
                said_at = time.monotonic()
                say(f"looking for run {run}: {error}; it is tried again and again")
        await asyncio.sleep(_pause_s(began_at))


def _pause_s(began_at: float) -> float:
    """Return how long to wait before the next look at what may come at any time: longer, the longer
    it has not."""
    return min(MAX_LOOK_S, max(LOOK_S, LOOK_SHARE * (time.monotonic() - began_at)))


def _why_not_found(run: RunId, record: Published | None) -> str:
    newer = "" if record is None else " that is newer than what was seen of it before"
    return f"the directory knows no run {run}{newer}"


async def watch_stage(
    directory: Directory,
    links: Links,
    run: RunId,
    stage: int,
    statuses: frozenset[str],
    seen: Callable[[int, tuple[PeerId, ...]], None],
    every_s: float,
    again: asyncio.Event | None = None,
) -> None:
    """Read a stage's records again and again; `seen(stage, peers)` is told of all of them.

    While nothing changes, less and less often: who comes is told of by others, and sets `again`.
    """
    wait_s, before = every_s, None
    while True:
        try:
            records = await directory.peers(run, stage)
        except DirectoryError as error:
            log.warning("stage %d of %s: %s", stage, run, error)
        else:
            present = [record for record in records if record.status in statuses]
            for record in present:
                links.know(record.peer, record.known_addresses)
            peers = tuple(sorted(record.peer for record in present))
            seen(stage, peers)
            is_news = not peers or peers != before
            wait_s = every_s if is_news else min(2 * wait_s, MOST_WAITS * every_s)
            before = peers
        await _pause(wait_s, again)


async def _pause(seconds: float, again: asyncio.Event | None) -> None:
    """Wait for that long, or until it is set."""
    if again is None:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await again.wait()
    except TimeoutError:
        return
    again.clear()
