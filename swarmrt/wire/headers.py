"""Headers of frames: a message's fields and its tensors' descriptors, in msgpack.

msgspec reads a header straight into values of the types that the message declares, and refuses what
is not exactly of them: a boolean is no integer, an array has as many items as it should. A float
may come as an integer.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import torch

from swarmrt.errors import WireError
from swarmrt.messages import Message
from swarmrt.wire.tensors import Descriptor, describe

_ENCODER = msgspec.msgpack.Encoder()


class HeaderFormat:
    """How the header of one kind of message is written and read."""

    def __init__(self, kind: type[Message]) -> None:
        hints = typing.get_type_hints(kind)
        self._kind = kind
        self._names = kind.__struct_fields__
        self._types = [_plain(hints[name]) for name in self._names]
        self._named_tuples = [
            (place, _restore(hints[name]))
            for place, name in enumerate(self._names)
            if hasattr(hints[name], "_fields")
        ]
        its_fields: Any = tuple.__class_getitem__(tuple(self._types))
        self._decoder = msgspec.msgpack.Decoder(tuple[its_fields, tuple[Descriptor, ...]])

    def encode(self, message: Message, tensors: Sequence[torch.Tensor]) -> bytes:
        values = msgspec.structs.astuple(message)
        return _ENCODER.encode((values, describe(tensors) if tensors else ()))

    def decode(self, header: bytes | memoryview) -> tuple[Message, tuple[Descriptor, ...]]:
        """Raises WireError."""
        try:
            values, descriptors = self._decoder.decode(header)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._refusal(header, error) from None
        if self._named_tuples:
            values = list(values)
            for place, restore in self._named_tuples:
                values[place] = restore(values[place])
        return self._kind(*values), descriptors

    def _refusal(self, header: bytes | memoryview, error: Exception) -> WireError:
        """What is wrong with a header that was not taken."""
        name = self._kind.__name__
        try:
            content = msgspec.msgpack.decode(header)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
            return WireError(f"{name}: the header is not msgpack: {broken}")
        match content:
            case [list(values), list()] if len(values) != len(self._names):
                return WireError(f"{name} has {len(self._names)} fields, got {len(values)}")
            case [list(values), list(descriptors)]:
                for value, wanted, field in zip(values, self._types, self._names, strict=True):
                    if not _is(value, wanted):
                        return WireError(f"{name}.{field} cannot be {value!r:.60}")
                return WireError(f"{name}: not a tensor descriptor in {descriptors!r:.80}: {error}")
        return WireError(f"{name}: the header is not [fields, tensors]")


def _plain(wanted: Any) -> Any:
    """The type as it is read. Of a NamedTuple every part must be there, whatever its default."""
    if hasattr(wanted, "_fields"):
        return tuple.__class_getitem__(tuple(map(_plain, typing.get_type_hints(wanted).values())))
    return wanted


def _restore(wanted: Any) -> Callable[[tuple[Any, ...]], Any]:
    """What makes a NamedTuple of its parts."""
    inner = [
        (place, _restore(part))
        for place, part in enumerate(typing.get_type_hints(wanted).values())
        if hasattr(part, "_fields")
    ]
    if not inner:
        return typing.cast(Callable[[tuple[Any, ...]], Any], wanted._make)

    def restore(parts: tuple[Any, ...]) -> Any:
        restored = list(parts)
        for place, restore_part in inner:
            restored[place] = restore_part(restored[place])
        return wanted._make(restored)

    return restore


def _is(value: Any, wanted: Any) -> bool:
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError:
        return False
    return True
