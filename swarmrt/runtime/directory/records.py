"""The records of the directory, and who may write them: each node refuses all others.

    swarmrt/RUN            the run's record, a statement of its owner, stored by its trainer
    swarmrt/RUN/stage/N    the peers of a stage, each with the membership that lets it serve there

A record has the public key of the peer that stores it in its subkey, and is signed with it. What
others have written in it beyond the keys that are known here is signed too, and skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from hivemind.dht.crypto import RSASignatureValidator
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.dht.validation import DHTRecord, RecordValidatorBase
from hivemind.utils import MSGPackSerializer
from hivemind.utils.crypto import RSAPrivateKey
from hivemind.utils.timed_storage import get_dht_time
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from swarmrt.errors import AccessError
from swarmrt.ids import PeerId, RunId
from swarmrt.runtime.access.identity import peer_of_public_key
from swarmrt.runtime.directory.nesting import bound_nesting
from swarmrt.runtime.reach.addresses import MAX_CHARACTERS, MAX_MULTIADDR_CHARACTERS, parse_address
from swarmrt.trust.checking import CLOCK_SLACK_S, Checker
from swarmrt.trust.joining_line import parse_run_id
from swarmrt.wire.skipping import MOST_FIELDS, SKIPPED_DEPTH, is_within

MAX_LIFE_S = 3600.0  # of a record; more would outlast whoever wrote it
MAX_RECORD_BYTES = 16 << 10
MAX_KEY_CHARACTERS = 64
MOST_TOKENS_PER_S = 1e12
MAX_RUNS = 256  # that a node of no run in particular keeps
MAX_RECORDS = 4096  # of one run

bound_nesting()  # of all that this process reads of the directory

SPARE = "spare"  # an intent
Role = Literal["joining", "serving", "leaving", "gone"]


def _is_direct(address: str) -> str:
    parse_address(address)
    return address


DirectAddress = Annotated[str, Field(max_length=MAX_CHARACTERS), AfterValidator(_is_direct)]
Multiaddress = Annotated[str, Field(max_length=MAX_MULTIADDR_CHARACTERS)]
Word = Annotated[str, Field(max_length=32)]


class RecordBase(BaseModel):
    """Base of all records and their parts. Keys that are not known are skipped."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Intent(RecordBase):
    """A peer's word on what it is going to do: a SPARE will take the place of a replica that is
    lost. Others are not known yet."""

    what: Word


class PeerRecord(RecordBase):
    """A peer announces that it serves a stage, where it is reached, and what it can do.

    What it says of itself, its rate and state, is to plan with: it may be wrong.
    """

    run: str = Field(max_length=96)
    stage: int = Field(ge=0, lt=1024)
    peer: PeerId = Field(max_length=128)
    status: Role
    version: int = Field(ge=0, lt=1 << 53)
    membership: str = Field(max_length=4096)
    life_s: float = Field(gt=0, le=MAX_LIFE_S)  # within which it is renewed
    addresses: list[Multiaddress] = Field(max_length=8)
    direct: list[DirectAddress] = Field(default=[], max_length=8)
    tokens_per_s: float = Field(default=0.0, ge=0, le=MOST_TOKENS_PER_S)  # measured; 0 unknown
    state_bytes: int = Field(default=0, ge=0, lt=1 << 53)  # of the stage's snapshot; 0 unknown
    device: Word = ""  # its kind: cpu, cuda, mps
    codecs: list[Word] = Field(default=[], max_length=16)  # in which it can send and take values
    intents: list[Intent] = Field(default=[], max_length=8)

    @property
    def known_addresses(self) -> dict[str, list[str]]:
        """The peer's addresses by the name of the carrier."""
        return {"libp2p": self.addresses, "direct": self.direct}


class RunRecord(RecordBase):
    """A trainer publishes its run: the owner's statement says all of it."""

    run: str = Field(max_length=96)
    published: str = Field(max_length=MAX_RECORD_BYTES)


AnyRecord = PeerRecord | RunRecord


def run_key(run: RunId) -> str:
    """Return the key of a run's record."""
    return f"swarmrt/{run}"


def stage_key(run: RunId, stage: int) -> str:
    """Return the key of a stage's records."""
    return f"swarmrt/{run}/stage/{stage}"


@dataclass(frozen=True)
class Signed:
    """A record that is in order, and the peer that has stored it."""

    signer: PeerId
    record: AnyRecord


class Records(RecordValidatorBase):  # type: ignore[misc]
    """Signs what this process stores, and judges what others do.

    Nothing is stored or read that is not in order.
    """

    def __init__(self, private_key: RSAPrivateKey, run: RunId | None) -> None:
        """`run` is the only one whose records are kept; without it, those of any run are."""
        self._signer = RSASignatureValidator(private_key)
        self._run = run
        self._checkers: dict[RunId, Checker] = {}
        self._kept: dict[RunId, dict[tuple[bytes, bytes], float]] = {}  # until when

    @property
    def subkey(self) -> bytes:
        """The subkey under which this process stores."""
        return bytes(self._signer.local_public_key)

    def validate(self, record: DHTRecord) -> bool:
        now = get_dht_time()
        try:
            signed = self._judge(record)
        except (AccessError, ValueError, TypeError):
            return False
        is_short = record.expiration_time <= now + MAX_LIFE_S + CLOCK_SLACK_S
        return is_short and self._has_room(parse_run_id(signed.record.run), record, now)

    def keep_valid(self, key: bytes, answer: DictionaryDHTValue) -> bool:
        """Drop what is not in order from an answer, and take the rest of it.

        hivemind drops the whole answer, so that one bad record would hide all good ones.
        """
        for subkey, entry in list(answer.items()):
            stored = MSGPackSerializer.dumps(subkey)
            if not self.validate(DHTRecord(key, stored, entry.value, entry.expiration_time)):
                del answer[subkey]
        return True

    def sign_value(self, record: DHTRecord) -> bytes:
        return bytes(self._signer.sign_value(record))

    def strip_value(self, record: DHTRecord) -> bytes:
        """Return what the reader gets of it: nothing, when it is not in order."""
        try:
            self._judge(record)
        except (AccessError, ValueError, TypeError):
            return bytes(MSGPackSerializer.dumps(None))
        return bytes(self._signer.strip_value(record))

    def parse(self, subkey: Any, value: Any) -> Signed:
        """Return a record that was read. Raises AccessError, ValueError or TypeError."""
        signer = _signer_of(subkey)
        _check_bounds(value)
        kind = RunRecord if "published" in value else PeerRecord
        return Signed(signer, kind.model_validate(value))

    def checker(self, run: RunId) -> Checker:
        """Return what checks the statements of a run."""
        if run not in self._checkers:
            if len(self._checkers) >= 2 * MAX_RUNS:
                self._checkers.clear()
            self._checkers[run] = Checker(run)
        return self._checkers[run]

    def _judge(self, record: DHTRecord) -> Signed:
        """Return the record if everything about it is in order. Raises AccessError, ValueError or
        TypeError."""
        if len(record.value) > MAX_RECORD_BYTES or len(record.subkey) > MAX_RECORD_BYTES:
            raise ValueError("too large")
        subkey = MSGPackSerializer.loads(record.subkey)
        _signer_of(subkey)  # hivemind's check raises what it likes at a key that is none
        if not self._signer.validate(record):
            raise ValueError("its signature is wrong")
        value = MSGPackSerializer.loads(self._signer.strip_value(record))
        signed = self.parse(subkey, value)
        run = parse_run_id(signed.record.run)
        if self._run is not None and run != self._run:
            raise ValueError("of another run")
        if isinstance(signed.record, RunRecord):
            key = run_key(run)
            self.checker(run).published(signed.record.published, signed.signer)
        else:
            key = stage_key(run, signed.record.stage)
            self._check_peer(run, signed.signer, signed.record)
        if DHTID.generate(source=key).to_bytes() != record.key:
            raise ValueError("under another key")
        return signed

    def _check_peer(self, run: RunId, signer: PeerId, record: PeerRecord) -> None:
        if record.peer != signer:
            raise ValueError("of another peer")
        shown = self.checker(run).credential(record.membership, signer, get_dht_time())
        if shown.invitation is not None or record.stage not in shown.stages:
            raise AccessError("its membership is not for this stage")

    def _has_room(self, run: RunId, record: DHTRecord, now: float) -> bool:
        """Return whether it replaces one of its owner's, or there are not too many yet."""
        kept = self._kept.get(run)
        if kept is None:
            if len(self._kept) >= MAX_RUNS:
                self._forget_ended(now)
            if len(self._kept) >= MAX_RUNS:
                return False
            kept = self._kept[run] = {}
        place = (record.key, record.subkey)
        if place not in kept and len(kept) >= MAX_RECORDS:
            for ended in [other for other, until in kept.items() if until < now]:
                del kept[ended]
            if len(kept) >= MAX_RECORDS:
                return False
        kept[place] = record.expiration_time
        return True

    def _forget_ended(self, now: float) -> None:
        for run in [run for run, kept in self._kept.items() if max(kept.values(), default=0) < now]:
            del self._kept[run]


def _check_bounds(value: Any) -> None:
    """Check that a record is no larger than any has to be, whatever it has beyond what is known.
    Raises ValueError."""
    if not isinstance(value, dict) or len(value) > MOST_FIELDS:
        raise ValueError(f"it is no map of at most {MOST_FIELDS} keys")
    if any(not isinstance(key, str) or len(key) > MAX_KEY_CHARACTERS for key in value):
        raise ValueError(f"its keys are not all texts of at most {MAX_KEY_CHARACTERS} characters")
    if not is_within(SKIPPED_DEPTH, list(value.values())):
        raise ValueError(f"it goes deeper than {SKIPPED_DEPTH}")


def _signer_of(subkey: Any) -> PeerId:
    """Return the peer whose key a subkey is. Raises ValueError or TypeError."""
    match = RSASignatureValidator._PUBLIC_KEY_RE.fullmatch(subkey)
    if match is None:
        raise ValueError("it names no owner")
    return peer_of_public_key(match[1])
