"""Recorded runs: every (now, event, instructions) of a core as plain values, and their replay.

A log starts with the core's settings. Fed to a fresh core, its events must give the same
instructions again, so a recorded incident is a test. Plain values are what JSON has: numbers that
it lacks, infinities and not-a-number, are written as their names.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Protocol

import msgspec

from swarmrt.errors import UsageError
from swarmrt.messages import ALL_MESSAGES
from swarmrt.recorded import KIND, Recorded
from swarmrt.scheduler import instructions as _instructions
from swarmrt.scheduler.events import ALL_EVENTS, Event
from swarmrt.scheduler.instructions import ALL_INSTRUCTIONS, Instruction
from swarmrt.scheduler.peer.core import PeerCore
from swarmrt.scheduler.peer.seat import PeerSettings
from swarmrt.scheduler.trainer.core import TrainerCore
from swarmrt.scheduler.trainer.run import TrainerSettings

_ENCODER = msgspec.json.Encoder()

_KINDS: tuple[type[Recorded], ...] = (
    *ALL_MESSAGES,
    *ALL_EVENTS,
    *ALL_INSTRUCTIONS,
    _instructions.Batch,
    _instructions.Output,
    _instructions.InputGrad,
    _instructions.GradientPart,
    _instructions.UpdatedPart,
    PeerSettings,
    TrainerSettings,
)
_CLASSES = {kind.__name__: kind for kind in _KINDS}


class Core(Protocol):
    def handle(self, event: Event, now: float) -> list[Instruction]: ...

    def validate(self) -> None: ...


def to_json(record: Any) -> bytes:
    """JSON of whatever has values of ours in it."""
    try:
        encoded = _ENCODER.encode(record)
    except UnicodeEncodeError:  # an error's text has a path in it that is no UTF-8
        return json.dumps(_named(msgspec.to_builtins(record))).encode()
    if b"null" in encoded:  # what JSON has for numbers that it lacks
        return _ENCODER.encode(_named(msgspec.to_builtins(record)))
    return encoded


def _named(plain: Any) -> Any:
    """Return it with the names of numbers that are not finite."""
    match plain:
        case float() if not math.isfinite(plain):
            return str(plain)
        case dict():
            return {key: _named(value) for key, value in plain.items()}
        case list() | tuple():
            return [_named(item) for item in plain]
    return plain


def to_plain(value: Any) -> Any:
    """Return what JSON would give back of it."""
    return _named(msgspec.to_builtins(value))


def from_plain(plain: Any, annotation: Any = None) -> Any:
    """The value again. Raises UsageError when it is none of ours."""
    if isinstance(plain, dict):
        kind = _CLASSES.get(plain.get(KIND, ""))
        if kind is None:
            raise UsageError(f"the record names an unknown kind of value: {plain.get(KIND)!r}")
        hints = _field_types(kind)
        return kind(**{n: from_plain(plain[n], t) for n, t in hints.items() if n in plain})
    if isinstance(plain, list):
        return _tuple(plain, annotation)
    if annotation is float and isinstance(plain, str):
        return _float(plain)
    return plain


def _float(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        raise UsageError(f"the record has {name!r:.80} where a number belongs") from None


def _tuple(items: list[Any], annotation: Any) -> Any:
    if isinstance(annotation, type) and hasattr(annotation, "_fields"):  # a NamedTuple
        hints = typing.get_type_hints(annotation)
        return annotation(*(from_plain(i, t) for i, t in zip(items, hints.values(), strict=True)))
    arguments = typing.get_args(annotation)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(from_plain(item, arguments[0]) for item in items)
    if len(arguments) == len(items):
        return tuple(from_plain(i, t) for i, t in zip(items, arguments, strict=True))
    return tuple(from_plain(item) for item in items)


@cache
def _field_types(kind: type[Recorded]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {name: _not_none(hints[name]) for name in kind.__struct_fields__}


def _not_none(annotation: Any) -> Any:
    if isinstance(annotation, types.UnionType):
        return next(a for a in typing.get_args(annotation) if a is not type(None))
    return annotation


def header(settings: PeerSettings | TrainerSettings) -> dict[str, Any]:
    """The first record of a log, for `to_json`."""
    return {"settings": settings}


def record(now: float, event: Event, instructions: Iterable[Instruction]) -> dict[str, Any]:
    """Return every other line of a log: what happened, when, and what it led to."""
    return {"now": now, "event": event, "instructions": instructions}


def new_core(settings: PeerSettings | TrainerSettings) -> PeerCore | TrainerCore:
    if isinstance(settings, PeerSettings):
        return PeerCore(settings)
    return TrainerCore(settings)


def replay(records: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """Feed a log to a fresh core: yields each record with the instructions given this time.

    They are equal to the recorded ones if the core decides as it did.
    """
    stream = iter(records)
    core = new_core(from_plain(next(stream)["settings"]))
    for entry in stream:
        again = core.handle(from_plain(entry["event"]), entry["now"])
        core.validate()
        yield entry, [to_plain(instruction) for instruction in again]
