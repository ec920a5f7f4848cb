"""A peer's place in the directory: it writes its own record there, and reads those of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, get_args

from swarmrt.config import Precision, RunConfig
from swarmrt.ids import RunId
from swarmrt.runtime.directory.keeping import keep_written
from swarmrt.runtime.directory.looking_up import Reading, watch_stage
from swarmrt.runtime.directory.network import Network
from swarmrt.runtime.directory.records import MOST_TOKENS_PER_S, SPARE, Intent, PeerRecord
from swarmrt.runtime.links.links import Links
from swarmrt.runtime.reach.addresses import MAX_ADDRESSES
from swarmrt.scheduler.instructions import Announce, RenewEvery
from swarmrt.scheduler.timing.intervals import record_life_s, renew_s
from swarmrt.scheduler.timing.times import BEACON_S
from swarmrt.trust.papers import GuestsPapers

CODECS = [
    name for name in get_args(Precision.model_fields["gradients"].annotation) if name != "model"
]


@dataclass(frozen=True)
class Abilities:
    """A peer's abilities, as its record tells of them."""

    device: str = ""  # its kind
    state_bytes: int = 0  # of the stage's snapshot
    tokens_per_s: Callable[[], float] = lambda: 0.0  # as it has measured by now; 0 unknown
    is_spare: bool = False  # it takes work only in the place of a replica that is lost


class Presence:
    """A peer's record, kept up to date, and the addresses of the peers that it deals with.

    Who is given work is the trainer's word: the directory only says where they are.
    """

    def __init__(
        self,
        config: RunConfig,
        stage: int,
        network: Network,
        links: Links,
        papers: GuestsPapers,
        abilities: Abilities | None = None,
    ) -> None:
        self._abilities = abilities or Abilities()
        self._config, self._stage, self._network = config, stage, network
        self._links, self._papers = links, papers
        self._announced: Announce | None = None
        self._changed = asyncio.Event()
        self._beacon_s = BEACON_S  # between beacons: as often at the most is the record renewed
        self._reading = Reading(config.links.refresh_s)
        self._look_again: dict[int, asyncio.Event] = {}  # by stage
        network.relays.on_change(self._changed.set)

    @property
    def _run(self) -> RunId:
        return self._papers.run

    def announce(self, what: Announce) -> None:
        """Show this status and version from now on."""
        self._announced = what
        self._changed.set()

    def renew(self) -> None:
        """Write the record again: what it shows of this peer has changed."""
        self._changed.set()

    def renew_every(self, what: RenewEvery) -> None:
        """Write the record less often from now on, so that it lives longer; or as before."""
        self._beacon_s = what.every_s
        self._changed.set()

    def _renew_s(self) -> float:
        return renew_s(self._config.links.record_ttl_s, self._beacon_s)

    def look_again(self, stage: int) -> None:
        """Read a stage's records soon, if it is watched: somebody has come to it."""
        if stage in self._look_again:
            self._look_again[stage].set()

    async def keep_announced(self) -> None:
        """Write this peer's record when it changes, and before it expires, again and again."""
        try:
            await keep_written(self._write, self._changed, self._renew_s)
        finally:
            self._network.relays.off_change(self._changed.set)  # its seat may have been closed

    async def _write(self) -> None:
        if self._announced is None:
            return
        life_s = record_life_s(self._config.links.record_ttl_s, self._beacon_s)
        record = PeerRecord(
            run=str(self._run),
            stage=self._stage,
            peer=self._network.me,
            status=self._announced.status,
            version=self._announced.version,
            membership=self._papers.membership,
            life_s=life_s,
            addresses=self._network.daemon.addresses()[:MAX_ADDRESSES],
            direct=self._links.addresses("direct"),
            tokens_per_s=min(self._abilities.tokens_per_s(), MOST_TOKENS_PER_S),
            state_bytes=self._abilities.state_bytes,
            device=self._abilities.device,
            codecs=CODECS,
            intents=[Intent(what=SPARE)] if self._abilities.is_spare else [],
        )
        await self._network.directory.announce(self._run, record, life_s)

    def watches(self) -> list[Coroutine[Any, Any, None]]:
        """Return what learns again and again where others are: replicas, for reduces and for the
        state; those of the stages on both sides, for frames, which whoever recovers gets again."""
        before, mine, after = self._stage - 1, self._stage, self._stage + 1
        around = frozenset({"serving", "leaving"})
        watches = [self._watch(mine, around | {"joining"})]
        if before >= 0:
            watches.append(self._watch(before, around))
        if after < self._config.num_stages:
            watches.append(self._watch(after, around))
        return watches

    async def _watch(self, stage: int, statuses: frozenset[str]) -> None:
        await watch_stage(
            self._network.directory,
            self._links,
            self._run,
            stage,
            statuses,
            lambda stage, peers: None,
            self._reading,
            self._look_again.setdefault(stage, asyncio.Event()),
        )
