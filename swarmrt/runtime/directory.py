"""The directory: signed, schema-checked, expiring records in hivemind's DHT.

    swarmrt/RUN            a run: its configuration, its trainer and the trainer's epoch
    swarmrt/RUN/stage/N    the peers of a stage

Each record has the public key of its owner in its subkey and is signed with it, so nobody can
write it for another; and the peer that it names must be the one whose key that is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from hivemind.dht.crypto import RSASignatureValidator
from hivemind.dht.node import DHTNode
from hivemind.dht.validation import CompositeValidator, DHTRecord, RecordValidatorBase
from hivemind.p2p.p2p_daemon_bindings.datastructures import PeerID
from hivemind.utils.timed_storage import ValueWithExpiration, get_dht_time
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from swarmrt.errors import DirectoryError
from swarmrt.ids import PeerId
from swarmrt.runtime.addresses import MAX_CHARACTERS, parse_address
from swarmrt.runtime.daemon import Daemon, no_answer
from swarmrt.runtime.identity import peer_of_public_key
from swarmrt.runtime.place import Standing

log = logging.getLogger("swarmrt.directory")

ANSWER_S = 10.0  # for the directory to answer one question
OPEN_S = 60.0  # for a node to come up, on a loaded machine and with some addresses dead
CLOSE_S = 3.0
MAX_LIFE_S = 3600.0  # of a record; more would outlast whoever wrote it
NEWER_S = 1e-3  # a record replaces the one of the same owner that expires earlier


def _is_direct(address: str) -> str:
    parse_address(address)
    return address


DirectAddress = Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(_is_direct)]


class Record(BaseModel):
    """Whose it is and where its process is reached: libp2p multiaddrs, and `IP:PORT`s."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    addresses: list[str] = Field(max_length=32)
    direct: list[DirectAddress] = Field(default=[], max_length=8)

    @property
    def known_addresses(self) -> dict[str, list[str]]:
        """By the name of the carrier."""
        return {"libp2p": self.addresses, "direct": self.direct}


class PeerRecord(Record):
    """A peer announces that it serves a stage."""

    run: str = Field(max_length=64)
    stage: int = Field(ge=0)
    peer: PeerId = Field(max_length=128)
    status: Literal["joining", "serving", "leaving"]
    version: int = Field(ge=0)


class RunRecord(Record):
    """A trainer publishes its run."""

    run: str = Field(max_length=64)
    trainer: PeerId = Field(max_length=128)
    epoch: int = Field(ge=0)
    config: dict[str, Any]


R = TypeVar("R", PeerRecord, RunRecord)


class SignedAndShort(RecordValidatorBase):  # type: ignore[misc]
    """Refuses what hivemind would take from anyone.

    A record that names no owner needs no signature, and one that has no subkey hides all records
    of its key until it expires: a single stranger could blind a run for years.
    """

    def validate(self, record: DHTRecord) -> bool:
        owned = RSASignatureValidator._PUBLIC_KEY_RE.search(record.subkey or b"") is not None
        return owned and record.expiration_time <= get_dht_time() + MAX_LIFE_S


class Directory:
    """This process's node. Every call has a deadline. Use `Directory.open`, `close` at the end."""

    def __init__(self, node: DHTNode, daemon: Daemon, subkey: bytes) -> None:
        self._node, self._daemon, self._subkey = node, daemon, subkey
        self._expires_at: dict[str, float] = {}  # what this process wrote, by key

    @classmethod
    async def open(cls, daemon: Daemon, join: Sequence[str]) -> Directory:
        """Start a node and join it to others. Raises DirectoryError when none of them answers."""
        signer = RSASignatureValidator(daemon.identity.private_key)
        try:
            async with asyncio.timeout(OPEN_S):
                node = await DHTNode.create(
                    p2p=daemon.p2p,
                    initial_peers=list(join) or None,
                    record_validator=CompositeValidator([signer, SignedAndShort()]),
                    cache_locally=False,  # a reader wants what is true now
                    cache_on_store=False,
                    cache_nearest=0,
                    client_mode=daemon.standing is Standing.BEHIND,  # others cannot ask it
                    strict=False,
                )
        except (RuntimeError, TimeoutError):
            raise no_answer(join) from None
        return cls(node, daemon, signer.local_public_key)

    async def meet(self, peer: PeerId) -> None:
        """Have a process among the nodes that are asked, if it is one.

        A node is forgotten once it does not answer. Others that come back call on those that they
        find; those whom nobody can call have to do it themselves.
        """
        await self._node.protocol.call_ping(PeerID.from_base58(peer))

    async def publish_run(self, record: RunRecord, ttl_s: float) -> None:
        await self._store(_run_key(record.run), record, ttl_s)

    async def find_run(self, name: str) -> RunRecord | None:
        """The newest epoch's record."""
        records = await self._read(_run_key(name), RunRecord)
        mine = [r for owner, r in records if r.trainer == owner and r.run == name]
        return max(mine, key=lambda record: record.epoch, default=None)

    async def announce(self, record: PeerRecord, ttl_s: float) -> None:
        await self._store(_stage_key(record.run, record.stage), record, ttl_s)

    async def peers(self, run: str, stage: int) -> list[PeerRecord]:
        """Who announces to serve the stage, by peer id."""
        records = await self._read(_stage_key(run, stage), PeerRecord)
        valid = [r for owner, r in records if r.peer == owner and (r.run, r.stage) == (run, stage)]
        return sorted(valid, key=lambda record: record.peer)

    async def withdraw(self) -> None:
        """Void what this process wrote, as far as the directory can be reached.

        A record cannot be taken back; an empty one, which no reader accepts, takes its place.
        """
        for key in list(self._expires_at):
            try:
                await self._store(key, None, 0.0)
            except DirectoryError as error:
                log.debug("withdrawing from %s: %s", key, error)

    async def close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._node.shutdown()
        except TimeoutError:
            log.debug("the directory node did not shut down within %s s", CLOSE_S)

    async def _store(self, key: str, record: Record | None, ttl_s: float) -> None:
        value = record.model_dump() if record is not None else None
        earlier = self._expires_at.get(key, 0.0)
        expires_at = max(get_dht_time() + ttl_s, earlier + NEWER_S)
        try:
            async with asyncio.timeout(ANSWER_S):
                stored = await self._node.store(key, value, expires_at, subkey=self._subkey)
        except TimeoutError:
            raise DirectoryError(f"the directory did not take {key} in {ANSWER_S:.0f} s") from None
        self._expires_at[key] = expires_at
        if not stored:
            log.debug("the directory holds a newer record of ours under %s", key)

    async def _read(self, key: str, kind: type[R]) -> list[tuple[PeerId, R]]:
        """Valid records with the peers that signed them."""
        try:
            async with asyncio.timeout(ANSWER_S):
                found = await self._node.get(key, latest=True)
        except TimeoutError:
            raise DirectoryError(f"the directory did not answer in {ANSWER_S:.0f} s") from None
        if found is None or not isinstance(found.value, dict):
            return []
        records = []
        for subkey, entry in found.value.items():
            parsed = _parse(subkey, entry, kind)
            if parsed is not None:
                records.append(parsed)
        return records


def _parse(subkey: Any, entry: ValueWithExpiration[Any], kind: type[R]) -> tuple[PeerId, R] | None:
    """The signer and its record; None, and a line in the log, when either is not in order."""
    try:
        key = RSASignatureValidator._PUBLIC_KEY_RE.fullmatch(subkey)[1]
        return peer_of_public_key(key), kind.model_validate(entry.value)
    except (ValidationError, ValueError, TypeError) as error:
        log.debug("ignoring a record: %s", error)
        return None


def _run_key(run: str) -> str:
    return f"swarmrt/{run}"


def _stage_key(run: str, stage: int) -> str:
    return f"swarmrt/{run}/stage/{stage}"
