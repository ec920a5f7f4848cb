"""Headers of frames: a message's fields and its tensors' descriptors, in msgpack.

msgspec reads a header straight into values of the types that the message declares, and refuses what
is not exactly of them: a boolean is no integer, an array has as many items as it should. A float
may come as an integer. Nothing is longer or larger than any honest process has use for: what comes
of a header is kept, compared, added up and logged.

A process of another age may say more of a message, or less. Fields that follow those that are known
are skipped, and fields at the end that have defaults may be missing. Such a header is made into one
of the known fields first, so all else that holds of a header holds of it.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Annotated, Any, cast

import msgspec
import torch

from swarmrt.errors import WireError
from swarmrt.ids import PeerId
from swarmrt.messages import Message, MessageBase
from swarmrt.wire.skipping import MOST_FIELDS, NONSENSE, skip
from swarmrt.wire.tensors import MAX_DIMENSIONS, MAX_TENSORS, Descriptor, describe

ID_CHARACTERS = 128
TEXT_CHARACTERS = 8 << 10  # a statement of a run's owner
REASON_CHARACTERS = 2000  # of a text for people; a message cuts its own
MOST_ITEMS = 1024  # stages of a path, replicas of a roster
MOST_LISTED = 1 << 18  # microbatches that a roster lists for one replica
LARGEST_NUMBER = 1 << 62  # either sign: the sum of two is a number of 64 bits still

_ENCODER = msgspec.msgpack.Encoder()
_REASON = Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS)]
_SHAPE = Annotated[tuple[int, ...], msgspec.Meta(max_length=MAX_DIMENSIONS)]
_DESCRIPTORS = Annotated[
    tuple[tuple[str, _SHAPE, str], ...],  # a `Descriptor` each
    msgspec.Meta(max_length=MAX_TENSORS),
]
_FIELDS = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MOST_FIELDS)]
_CUT = msgspec.msgpack.Decoder(tuple[_FIELDS, msgspec.Raw])
_OF_UNKNOWN = msgspec.msgpack.Decoder(tuple[_FIELDS, _DESCRIPTORS])


class HeaderFormat:
    """The way in which the header of one kind of message is written and read."""

    def __init__(self, kind: type[MessageBase]) -> None:
        hints = typing.get_type_hints(kind)
        self._kind = kind
        self._names = kind.__struct_fields__
        self._types = [_REASON if name == "reason" else _plain(hints[name]) for name in self._names]
        self._named_tuples = [
            (place, _restore(hints[name]))
            for place, name in enumerate(self._names)
            if hasattr(hints[name], "_fields")
        ]
        self._defaults = kind.__struct_defaults__  # of as many fields at the end
        self._decoder = msgspec.msgpack.Decoder(_tuple((_tuple(self._types), _DESCRIPTORS)))

    def encode(self, message: MessageBase, tensors: Sequence[torch.Tensor]) -> bytes:
        values = msgspec.structs.astuple(message)
        return _ENCODER.encode((values, describe(tensors) if tensors else ()))

    def decode(self, header: bytes | memoryview) -> tuple[Message, tuple[Descriptor, ...]]:
        """Read a header. Raises WireError."""
        try:
            values, descriptors = self._decoder.decode(header)
        except NONSENSE as error:
            values, descriptors = self._decode_other(header, error)
        if self._named_tuples:
            values = list(values)
            for place, restore in self._named_tuples:
                values[place] = restore(values[place])
        return cast(Message, self._kind(*values)), descriptors

    def _decode_other(self, header: bytes | memoryview, error: Exception) -> tuple[Any, Any]:
        """Read a header that has not just the fields that are known. Raises WireError for the
        `error` that it was refused with, when that is none of its age."""
        name, known = self._kind.__name__, len(self._names)
        try:
            fields, descriptors = _CUT.decode(header)
        except NONSENSE:
            raise self._refusal(header, error) from None
        missing = known - len(fields)
        if missing > len(self._defaults):
            needed = known - len(self._defaults)
            raise WireError(f"{name} has at least {needed} fields, got {len(fields)}")
        if not missing:
            raise self._refusal(header, error)
        skip(name, fields[known:])
        defaults = self._defaults[-missing:] if missing > 0 else ()
        header = _ENCODER.encode(((*fields[:known], *defaults), descriptors))
        try:
            return cast(tuple[Any, Any], self._decoder.decode(header))
        except NONSENSE as wrong:
            raise self._refusal(header, wrong) from None

    def _refusal(self, header: bytes | memoryview, error: Exception) -> WireError:
        """Return what is wrong with a header that was not taken."""
        name = self._kind.__name__
        try:
            content = msgspec.msgpack.decode(header)
        except NONSENSE as broken:
            return WireError(f"{name}: the header is not msgpack: {broken}")
        match content:
            case [list(values), list()] if len(values) > MOST_FIELDS:
                return WireError(f"{name} with {len(values)} fields; at most {MOST_FIELDS}")
            case [list(values), list(descriptors)]:
                for value, wanted, field in zip(values, self._types, self._names, strict=False):
                    if not _is(value, wanted):
                        return WireError(f"{name}.{field} cannot be {value!r:.60}")
                return WireError(f"{name}: not a tensor descriptor in {descriptors!r:.80}: {error}")
        return WireError(f"{name}: the header is not [fields, tensors]")


def skip_header(kind: int, header: bytes | memoryview) -> tuple[Descriptor, ...]:
    """Return the tensors' descriptors of a message of a kind that is not known. Raises
    WireError."""
    name = f"unknown kind {kind}"
    try:
        fields, descriptors = _OF_UNKNOWN.decode(header)
    except NONSENSE as error:
        raise WireError(f"{name}: the header is not [fields, tensors]: {error}") from None
    skip(name, fields)
    return descriptors


def _plain(wanted: Any, most_items: int = MOST_ITEMS) -> Any:
    """The type as it is read, with its bounds. Of a NamedTuple every part must be there, whatever
    its default."""
    if hasattr(wanted, "_fields"):
        return _tuple(map(_plain, typing.get_type_hints(wanted).values()))
    if wanted is PeerId:
        return Annotated[str, msgspec.Meta(max_length=ID_CHARACTERS)]
    if wanted is str:
        return Annotated[str, msgspec.Meta(max_length=TEXT_CHARACTERS)]
    if wanted is int:
        return Annotated[int, msgspec.Meta(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]
    if typing.get_origin(wanted) is not tuple:
        return wanted
    match typing.get_args(wanted):
        case (item, end) if end is Ellipsis:
            items = _tuple((_plain(item), Ellipsis))
            return Annotated[items, msgspec.Meta(max_length=most_items)]
        case parts:  # an entry of a roster
            return _tuple(_plain(part, MOST_LISTED) for part in parts)


def _tuple(parts: Iterable[Any]) -> Any:
    """The type of a tuple with these parts."""
    return tuple.__class_getitem__(tuple(parts))


def _restore(wanted: Any) -> Callable[[tuple[Any, ...]], Any]:
    """Return what makes a NamedTuple of its parts."""
    inner = [
        (place, _restore(part))
        for place, part in enumerate(typing.get_type_hints(wanted).values())
        if hasattr(part, "_fields")
    ]
    if not inner:
        return partial(tuple.__new__, wanted)  # `_make` would count the parts again

    def restore(parts: tuple[Any, ...]) -> Any:
        restored = list(parts)
        for place, restore_part in inner:
            restored[place] = restore_part(restored[place])
        return tuple.__new__(wanted, restored)

    return restore


def _is(value: Any, wanted: Any) -> bool:
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError:
        return False
    return True
