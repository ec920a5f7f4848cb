"""The directory: where a run is, and who serves its stages, in hivemind's DHT."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from hivemind.dht.node import DHTNode
from hivemind.p2p.p2p_daemon_bindings.datastructures import PeerID
from hivemind.utils.auth import AuthRole, AuthRPCWrapper
from hivemind.utils.timed_storage import get_dht_time

from swarmrt.errors import AccessError, DirectoryError, UsageError
from swarmrt.ids import PeerId, RunId
from swarmrt.runtime.daemon.daemon import Daemon
from swarmrt.runtime.daemon.daemon_process import no_answer
from swarmrt.runtime.directory.access import RunAuthorizer
from swarmrt.runtime.directory.clocks_apart import why_clocks_hide
from swarmrt.runtime.directory.records import (
    MAX_RECORD_BYTES,
    MAX_RECORDS,
    AnyRecord,
    PeerRecord,
    Records,
    RunRecord,
    run_key,
    stage_key,
)
from swarmrt.runtime.reach.place import Standing
from swarmrt.trust.checking import CLOCK_SLACK_S
from swarmrt.trust.papers import Papers
from swarmrt.trust.statements import Published

log = logging.getLogger("swarmrt.directory")

ANSWER_S = 10.0  # for the directory to answer one question
OPEN_S = 60.0  # for a node to come up, on a loaded machine and with some addresses dead
CLOSE_S = 3.0
NEWER_S = 1e-3  # a record replaces the one of the same owner that expires earlier
SIGNED_BYTES = 1 << 10  # of a record, for its signature and its frame


class Directory:
    """The node of this process. Every call has a deadline. Use `Directory.open`, `close` at the
    end."""

    def __init__(self, daemon: Daemon, node: DHTNode, records: Records) -> None:
        self._daemon, self._node, self._records = daemon, node, records
        self._expires_at: dict[str, float] = {}  # what this process wrote, by key
        self._withdrawals: dict[str, AnyRecord] = {}  # what takes the place of it
        self._renewed: dict[tuple[str, PeerId], tuple[float, float]] = {}

    @classmethod
    async def open(
        cls,
        daemon: Daemon,
        join: Sequence[str],
        papers: Papers | None = None,
        *,
        private: bool = False,
        is_barred: Callable[[PeerId], bool] = lambda _: False,
    ) -> Directory:
        """Start a node and join it to others. Raises DirectoryError when none of them answers.

        With papers the node keeps records of their run only; a private one talks to nobody but
        those who can show something of that run.
        """
        run = papers.run if papers is not None else None
        records = Records(daemon.identity.private_key, run)
        authorizer = None
        if papers is not None and private:
            authorizer = RunAuthorizer(daemon.identity, papers, is_barred)
        try:
            async with asyncio.timeout(OPEN_S):
                node = await DHTNode.create(
                    p2p=daemon.p2p,
                    initial_peers=list(join) or None,
                    record_validator=records,
                    authorizer=authorizer,
                    cache_locally=False,  # a reader wants what is true now
                    cache_on_store=False,
                    cache_nearest=0,
                    client_mode=daemon.standing is Standing.BEHIND,  # others cannot ask it
                    strict=False,
                )
        except (RuntimeError, TimeoutError):
            asked = [PeerID.from_base58(address.rpartition("/p2p/")[2]) for address in join]
            if why := await why_clocks_hide(daemon.p2p, asked, authorizer):
                raise DirectoryError(why) from None
            raise no_answer(join, run) from None
        node.protocol._validate_dictionary = records.keep_valid
        return cls(daemon, node, records)

    async def go_on(self) -> None:
        """Go on through the daemon that has taken the place of one that is gone: with the same
        node, what it keeps, and whom it knows. Raises OSError."""
        protocol = self._node.protocol
        self._node.p2p = protocol.p2p = self._daemon.p2p
        if not protocol.client_mode:
            answers = AuthRPCWrapper(protocol, AuthRole.SERVICER, protocol.authorizer)
            async with asyncio.timeout(OPEN_S):
                await protocol.add_p2p_handlers(protocol.p2p, answers)

    def known(self) -> set[PeerId]:
        """Return whose nodes this one knows."""
        peers = self._node.protocol.routing_table.uid_to_peer_id.values()
        return {PeerId(peer.to_base58()) for peer in peers}

    async def meet(self, peer: PeerId) -> bool:
        """Have a process among the nodes that are asked, if it is one; return whether it answers.

        A node is forgotten once it does not answer. Others that come back call on those that they
        find; those whom nobody can call have to do it themselves. Raises TimeoutError.
        """
        async with asyncio.timeout(ANSWER_S):
            return await self._node.protocol.call_ping(PeerID.from_base58(peer)) is not None

    async def publish_run(self, run: RunId, published: str, ended: str, ttl_s: float) -> None:
        """Store the run's record, a statement of its owner; `ended` replaces it in the end.

        Raises UsageError when it is too large, DirectoryError when nobody takes it.
        """
        if len(published) > MAX_RECORD_BYTES - SIGNED_BYTES:
            raise UsageError(
                f"the run's configuration makes a record of {len(published)} bytes, but the "
                f"directory takes {MAX_RECORD_BYTES - SIGNED_BYTES}; shorten model.options"
            )
        key = run_key(run)
        self._withdrawals[key] = RunRecord(run=str(run), published=ended)
        await self._store(key, RunRecord(run=str(run), published=published), ttl_s)

    async def find_run(self, run: RunId) -> Published | None:
        """Return the newest that the owner says of the run; None if it is not published.

        Raises DirectoryError.
        """
        found = []
        for signer, record, _ in await self._read(run_key(run)):
            if isinstance(record, RunRecord) and record.run == str(run):
                try:
                    published = self._records.checker(run).published(record.published, signer)
                except AccessError as error:
                    log.debug("ignoring a record: %s", error)
                    continue
                if published.expires_at + CLOCK_SLACK_S > time.time() and published.addresses:
                    found.append(published)
        return max(found, key=lambda published: published.age, default=None)

    async def why_clocks_hide(self) -> str:
        """Return what is wrong with this process's clock, as others in the directory see it."""
        protocol = self._node.protocol
        others = protocol.routing_table.uid_to_peer_id.values()
        return await why_clocks_hide(self._node.p2p, others, protocol.authorizer)

    async def announce(self, run: RunId, record: PeerRecord, ttl_s: float) -> None:
        """Store this peer's record. Raises DirectoryError."""
        key = stage_key(run, record.stage)
        self._withdrawals[key] = record.model_copy(update={"status": "gone", "addresses": []})
        await self._store(key, record, ttl_s)

    async def peers(self, run: RunId, stage: int) -> list[PeerRecord]:
        """Return who announces to serve the stage, by peer id. Raises DirectoryError."""
        read = await self._read(stage_key(run, stage))
        valid = [
            record
            for signer, record, expires_at in read
            if isinstance(record, PeerRecord)
            and (record.peer, record.run, record.stage) == (signer, str(run), stage)
            and record.status != "gone"
            and self._is_fresh(record, expires_at)
        ]
        return sorted(valid, key=lambda record: record.peer)

    async def withdraw(self) -> None:
        """Void what this process wrote, as far as the directory can be reached.

        A record cannot be taken back; one that says so takes its place.
        """
        for key in list(self._expires_at):
            try:
                await self._store(key, self._withdrawals[key], 0.0)
            except DirectoryError as error:
                log.debug("withdrawing from %s: %s", key, error)

    async def close(self) -> None:
        """End the node."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._node.shutdown()
        except TimeoutError:
            log.debug("the directory node did not shut down within %s s", CLOSE_S)

    async def _store(self, key: str, record: AnyRecord, ttl_s: float) -> None:
        earlier = self._expires_at.get(key, 0.0)
        slack_s = CLOCK_SLACK_S if ttl_s else 0.0  # so that no clock hides it
        self._check_daemon()
        expires_at = max(get_dht_time() + ttl_s + slack_s, earlier + NEWER_S)
        subkey = self._records.subkey
        try:
            async with asyncio.timeout(ANSWER_S):
                value = record.model_dump(exclude_defaults=True)
                stored = await self._node.store(key, value, expires_at, subkey=subkey)
        except TimeoutError:
            raise DirectoryError(f"the directory did not take {key} in {ANSWER_S:.0f} s") from None
        self._check_daemon()  # without it nobody else has taken anything
        self._expires_at[key] = expires_at
        if not stored:
            log.debug("the directory holds a newer record of ours under %s", key)

    def _check_daemon(self) -> None:
        """Check that questions leave this process. Raises DirectoryError."""
        if self._daemon.is_gone:
            raise DirectoryError("the libp2p daemon of this process is gone")

    def _is_fresh(self, record: PeerRecord, expires_at: float) -> bool:
        """Return whether a record has been renewed within its life, as far as this process has
        watched.

        Clocks of others say nothing of it, so records are stored for longer than their life.
        """
        now, key = time.monotonic(), (record.run, record.peer)
        known, since = self._renewed.get(key, (0.0, 0.0))
        if expires_at != known:
            known, since = expires_at, now
            self._renewed.pop(key, None)
            self._renewed[key] = (known, since)
            while len(self._renewed) > MAX_RECORDS:
                del self._renewed[next(iter(self._renewed))]
        return now - since <= record.life_s

    async def _read(self, key: str) -> list[tuple[PeerId, AnyRecord, float]]:
        """Return the records that are in order, who stored them, and when they expire."""
        self._check_daemon()
        try:
            async with asyncio.timeout(ANSWER_S):
                found = await self._node.get(key, latest=True)
        except TimeoutError:
            raise DirectoryError(f"the directory did not answer in {ANSWER_S:.0f} s") from None
        self._check_daemon()  # without it nobody else has been asked
        if found is None or not isinstance(found.value, dict):
            return []
        read = []
        for subkey, entry in found.value.items():
            try:
                signed = self._records.parse(subkey, entry.value)
            except (AccessError, ValueError, TypeError) as error:
                log.debug("ignoring a record: %s", error)
            else:
                read.append((signed.signer, signed.record, entry.expiration_time))
        return read
