"""Recorded runs: every (now, event, instructions) of a core as plain values, and their replay.

A log starts with the core's settings. Fed to a fresh core, its events must give the same
instructions again, so a recorded incident is a test. Plain values are what JSON has: numbers that
it lacks, infinities and not-a-number, are written as their names.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, Protocol

from swarmrt.errors import UsageError
from swarmrt.messages import ALL_MESSAGES
from swarmrt.scheduler import instructions as _instructions
from swarmrt.scheduler.events import ALL_EVENTS, Event
from swarmrt.scheduler.instructions import ALL_INSTRUCTIONS, Instruction
from swarmrt.scheduler.peer import PeerCore
from swarmrt.scheduler.run import TrainerSettings
from swarmrt.scheduler.seat import PeerSettings
from swarmrt.scheduler.trainer import TrainerCore

KIND = "is"  # the key that names a value's class

_CLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *ALL_MESSAGES,
        *ALL_EVENTS,
        *ALL_INSTRUCTIONS,
        _instructions.Batch,
        _instructions.Output,
        _instructions.InputGrad,
        _instructions.GradientPart,
        PeerSettings,
        TrainerSettings,
    )
}

_SCALARS = frozenset({int, float, str, bool, type(None)})


class Core(Protocol):
    def handle(self, event: Event, now: float) -> list[Instruction]: ...

    def validate(self) -> None: ...


def to_plain(value: Any) -> Any:
    """Dataclasses become maps with their name, tuples become lists; the rest stays."""
    kind: Any = type(value)
    if kind is float:
        return _plain_float(value)
    if kind in _SCALARS:  # most are: every event of a run comes through here
        return value
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, int | float | str):
        return value
    plain = {KIND: kind.__name__}
    for name, convert in _conversions(kind):
        field = getattr(value, name)
        plain[name] = field if convert is None else convert(field)
    return plain


def _plain_float(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


@cache
def _conversions(kind: Any) -> list[tuple[str, Callable[[Any], Any] | None]]:
    """For each field of a dataclass, what makes it plain; None for what is plain already."""
    hints = typing.get_type_hints(kind)
    return [(name, _conversion(hints[name])) for name in _field_types(kind)]


def _conversion(annotation: Any) -> Callable[[Any], Any] | None:
    """The least that does what to_plain does with values of this type."""
    if annotation is float:
        return to_plain  # of an integer too
    if _is_scalar(annotation):
        return None
    parts = [part for part in typing.get_args(annotation) if part is not Ellipsis]
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return None if all(map(_is_scalar, parts)) else to_plain
    if hasattr(annotation, "_fields"):
        parts = list(typing.get_type_hints(annotation).values())
    return list if parts and all(map(_is_scalar, parts)) else to_plain


def _is_scalar(annotation: Any) -> bool:
    """Whether it is plain, whatever its value."""
    plain = getattr(annotation, "__supertype__", annotation)  # of a NewType
    if typing.get_origin(plain) is typing.Literal:
        return True
    return plain in _SCALARS and plain is not float


def from_plain(plain: Any, annotation: Any = None) -> Any:
    """The value again. Raises UsageError when it is none of ours."""
    if isinstance(plain, dict):
        kind = _CLASSES.get(plain.get(KIND, ""))
        if kind is None:
            raise UsageError(f"the record names an unknown kind of value: {plain.get(KIND)!r}")
        return kind(**{n: from_plain(plain[n], t) for n, t in _field_types(kind).items()})
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
def _field_types(kind: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(kind):
        raise UsageError(f"{kind.__name__} cannot be recorded")
    hints = typing.get_type_hints(kind)
    return {field.name: _not_none(hints[field.name]) for field in dataclasses.fields(kind)}


def _not_none(annotation: Any) -> Any:
    if isinstance(annotation, types.UnionType):
        return next(a for a in typing.get_args(annotation) if a is not type(None))
    return annotation


def header(settings: PeerSettings | TrainerSettings) -> dict[str, Any]:
    """The first record of a log."""
    return {"settings": to_plain(settings)}


def record(now: float, event: Event, instructions: Iterable[Instruction]) -> dict[str, Any]:
    return {
        "now": now,
        "event": to_plain(event),
        "instructions": [to_plain(instruction) for instruction in instructions],
    }


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
