"""Recorded runs: every (now, event, instructions) of a core as a line of JSON, and their replay.

A log starts with the core's settings. Fed to a fresh core, its events must give the same
instructions again, so a recorded incident is a test. So it is with states that are fetched, each of
which has a small core of its own. Numbers that JSON lacks, infinities and not-a-number, are written
as their names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import msgspec

from swarmrt.errors import UsageError
from swarmrt.ids import PeerId
from swarmrt.scheduler.events import Event
from swarmrt.scheduler.fetching.events import FetchBegan, FetchEvent, Key
from swarmrt.scheduler.fetching.fetch import Fetching, Step
from swarmrt.scheduler.instructions import Instruction
from swarmrt.scheduler.peer.core import PeerCore
from swarmrt.scheduler.settings import AnySettings, PeerSettings, StewardSettings
from swarmrt.scheduler.steward.core import StewardCore
from swarmrt.scheduler.trainer.core import TrainerCore


class Core(Protocol):
    def handle(self, event: Event, now: float) -> list[Instruction]: ...

    def validate(self) -> None: ...


class Header(msgspec.Struct, frozen=True):
    """The first record of a log."""

    settings: AnySettings


class Record(msgspec.Struct, frozen=True):
    """The other records of a log: what happened, when, and what it led to."""

    now: float  # seconds of the process's own clock
    event: Event
    instructions: list[Instruction]


class FetchRecord(msgspec.Struct, frozen=True):
    """A record about a state that is fetched."""

    fetch: Key
    now: float
    event: FetchEvent
    instructions: list[Step]


_ENCODER = msgspec.json.Encoder()
_HEADER = msgspec.json.Decoder(Header, strict=False)  # so that names of numbers are numbers
_RECORD = msgspec.json.Decoder(Record, strict=False)
_FETCH = msgspec.json.Decoder(FetchRecord, strict=False)
_HEADER_BEGINS, _FETCH_BEGINS = b'{"settings"', b'{"fetch"'


def to_json(record: Any) -> bytes:
    """JSON of whatever has values of ours in it."""
    try:
        encoded = _ENCODER.encode(record)
    except UnicodeEncodeError:  # an error's text has a path in it that is no UTF-8
        return _ENCODER.encode(to_plain(record))
    if b"null" in encoded:  # what JSON has for numbers that it lacks
        return _ENCODER.encode(to_plain(record))
    return encoded


def to_plain(value: Any) -> Any:
    """Return what JSON would give back of it."""
    return _named(msgspec.to_builtins(value))


def _named(plain: Any) -> Any:
    """Return it with the names of numbers that are not finite, and with text that is UTF-8."""
    match plain:
        case str():
            return plain.encode("utf-8", "backslashreplace").decode()
        case float() if not math.isfinite(plain):
            return str(plain)
        case dict():
            return {key: _named(value) for key, value in plain.items()}
        case list() | tuple():
            return [_named(item) for item in plain]
    return plain


def of_json(line: bytes | str) -> Header | Record | FetchRecord:
    """Return the record of a line.

    Raises UsageError when it is of another version, and msgspec.DecodeError when it is no JSON.
    """
    data = line if isinstance(line, bytes) else line.encode()
    try:
        if data.startswith(_HEADER_BEGINS):
            return _HEADER.decode(data)
        if data.startswith(_FETCH_BEGINS):
            return _FETCH.decode(data)
        return _RECORD.decode(data)
    except msgspec.ValidationError as error:
        raise UsageError(f"no record of this version of swarmrt: {error}") from None


def new_core(settings: AnySettings) -> PeerCore | StewardCore | TrainerCore:
    if isinstance(settings, PeerSettings):
        return PeerCore(settings)
    if isinstance(settings, StewardSettings):
        return StewardCore(settings)
    return TrainerCore(settings)


class Fetchings:
    """The states that a process fetches, as its log tells it."""

    def __init__(self) -> None:
        self._distrusted: set[PeerId] = set()
        self._cores: dict[Key, Fetching] = {}

    def handle(self, record: FetchRecord) -> list[Step]:
        event = record.event
        if isinstance(event, FetchBegan):
            how = (event.size_bytes, event.chunk_bytes, self._distrusted, event.at_once)
            self._cores[record.fetch] = Fetching(*how)
            return []
        core = self._cores[record.fetch]
        steps = core.handle(event, record.now)
        core.validate()
        return steps


Replayed = tuple[Record, list[Instruction]] | tuple[FetchRecord, list[Step]]


def replay(header: Header, records: Iterable[Record | FetchRecord]) -> Iterator[Replayed]:
    """Feed a log to a fresh core: yields each record with the instructions given this time.

    They are equal to the recorded ones if the core decides as it did.
    """
    core, fetchings = new_core(header.settings), Fetchings()
    for record in records:
        if isinstance(record, FetchRecord):
            yield record, fetchings.handle(record)
            continue
        again = core.handle(record.event, record.now)
        core.validate()
        yield record, again
