"""Frames: the unit of bytes between two processes. Sans-I/O.

    prefix   24 bytes, big-endian: magic "SWRT" · version u8 · kind u8 · two zero bytes ·
             message u32 · header length u32 · payload length u64
    header   msgpack: [fields of the message, tensor descriptors]
    payload  the first bytes of the message's payload, up to a chunk

A payload that is longer than a chunk goes on in CHUNK frames of the same message number, which
have no header. Frames of other messages may come between them, so a control message never waits
for bulk. Everything is bounded before anything is allocated.
"""

from __future__ import annotations

import struct
import types
import typing
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import msgpack
import torch

from swarmrt.errors import WireError
from swarmrt.messages import ALL_MESSAGES, Message
from swarmrt.wire.tensors import Descriptor, decode_tensors, describe, encode_tensors, payload_bytes

PROTOCOL = 1
MAGIC = b"SWRT"
PREFIX = struct.Struct(">4sBBxxIIQ")
CHUNK_BYTES = 256 << 10  # between two chances for a control message
MAX_HEADER_BYTES = 1 << 20
HEAD_BYTES = 4 << 10  # read at once where no payload is due: a control message is one read
MAX_PARTIAL_MESSAGES = 16
CHUNK = 0
HELLO = 255


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """The first frame each way."""

    protocol: int
    run: str
    beacon_key: str  # in hex, to seal beacons to the sender with; empty when it takes none by UDP
    beacon_addresses: tuple[str, ...]  # IP:PORT, where it takes them


_NUMBERS: dict[type[Message], int] = {kind: n for n, kind in enumerate(ALL_MESSAGES, 1)}
_NUMBERS[Hello] = HELLO
_KINDS = {number: kind for kind, number in _NUMBERS.items()}

Received = tuple[Message, list[torch.Tensor]]


# ---------------------------------------------------------------------- writing


@dataclass
class Outgoing:
    """A message on its way out: what is left to be written."""

    message: Message
    kind: int
    header: bytes
    pieces: deque[memoryview]
    left_bytes: int
    number: int = 0
    begun: bool = False

    @property
    def is_control(self) -> bool:
        return self.left_bytes <= CHUNK_BYTES // 4


def encode(message: Message, tensors: Sequence[torch.Tensor] = ()) -> Outgoing:
    """Ready to be pushed into a FrameWriter. Tensors must stay as they are until written."""
    values = [getattr(message, field.name) for field in fields(message)]
    header = msgpack.packb([values, describe(tensors)])
    pieces = deque(encode_tensors(tensors))
    left = sum(piece.nbytes for piece in pieces)
    return Outgoing(message, _NUMBERS[type(message)], header, pieces, left)


class FrameWriter:
    """Orders frames: control before bulk, and each of the two in the order of pushing."""

    def __init__(self) -> None:
        self._control: deque[Outgoing] = deque()
        self._bulk: deque[Outgoing] = deque()
        self._number = 0
        self.queued_bytes = 0

    def __len__(self) -> int:
        return len(self._control) + len(self._bulk)

    def push(self, outgoing: Outgoing) -> None:
        self.queued_bytes += outgoing.left_bytes
        (self._control if outgoing.is_control else self._bulk).append(outgoing)

    def next_frame(self) -> tuple[list[bytes | memoryview], Message | None]:
        """Buffers of the next frame, and the message that is complete with it, if any.

        Raises IndexError when nothing is queued.
        """
        queue = self._control if self._control else self._bulk
        outgoing = queue[0]
        kind, header = CHUNK, b""
        if not outgoing.begun:
            outgoing.begun, kind, header = True, outgoing.kind, outgoing.header
            outgoing.number = self._number = (self._number + 1) % (1 << 32)
        body = _take(outgoing.pieces, CHUNK_BYTES)
        size = sum(piece.nbytes for piece in body)
        outgoing.left_bytes -= size
        self.queued_bytes -= size
        prefix = PREFIX.pack(MAGIC, PROTOCOL, kind, outgoing.number, len(header), size)
        complete = outgoing.left_bytes == 0
        if complete:
            queue.popleft()
        return [prefix + header, *body], outgoing.message if complete else None

    def unsent(self) -> list[Message]:
        """Messages that were not written to their end."""
        return [outgoing.message for outgoing in (*self._control, *self._bulk)]


def _take(pieces: deque[memoryview], size: int) -> list[memoryview]:
    """The first bytes of some pieces, at most so many."""
    taken = []
    while pieces and size:
        piece = pieces.popleft()
        if piece.nbytes > size:
            pieces.appendleft(piece[size:])
            piece = piece[:size]
        taken.append(piece)
        size -= piece.nbytes
    return taken


# ---------------------------------------------------------------------- reading


@dataclass
class Partial:
    """A message whose payload is not whole yet."""

    message: Message
    descriptors: list[Descriptor]
    payload: bytearray
    filled: int = 0

    def finish(self) -> Received:
        return self.message, decode_tensors(self.descriptors, self.payload)


class FrameReader:
    """Bytes come in as they are; whole messages come out. Raises WireError; then close the link.

    Either `feed` it, or read into `get_buffer` and tell `buffer_updated`, so that payloads go from
    the socket to their tensors without a copy in between. At most twice `max_message_bytes` are
    held for messages that are not whole yet.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._max_bytes = max_message_bytes
        self._buffer = bytearray()  # of prefixes and headers; payloads go to their messages
        self._frame: tuple[int, int, int, int] | None = None  # kind, number, header, payload
        self._partials: dict[int, Partial] = {}
        self._filling: Partial | None = None
        self._fill_left = 0
        self._head = memoryview(bytearray(HEAD_BYTES))

    def get_buffer(self) -> memoryview:
        """Where the next bytes belong: in a payload that is under way, or a small buffer."""
        if self._fill_left:
            partial = self._filling
            assert partial is not None
            return memoryview(partial.payload)[partial.filled : partial.filled + self._fill_left]
        return self._head

    def buffer_updated(self, size: int) -> Iterator[Received]:
        """All messages that are whole with the bytes that are now in `get_buffer`, to be iterated
        to the end before it is called again."""
        if self._fill_left:
            yield from self._filled(size)
        else:
            yield from self.feed(self._head[:size])

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Received]:
        """All messages that are whole with these bytes."""
        view = memoryview(data)
        while view:
            if self._fill_left:
                size = min(len(view), self._fill_left)
                self.get_buffer()[:size] = view[:size]
                view = view[size:]
                yield from self._filled(size)
            else:
                view = self._read_head(view)
                if self._filling is not None and not self._fill_left:
                    yield from self._frame_complete()  # it has no payload

    def _filled(self, size: int) -> Iterator[Received]:
        """So many more bytes of the payload that is under way are there."""
        partial = self._filling
        assert partial is not None
        partial.filled += size
        self._fill_left -= size
        if not self._fill_left:
            yield from self._frame_complete()

    def _read_head(self, view: memoryview) -> memoryview:
        """Collect a prefix, then its header."""
        wanted = PREFIX.size + (self._frame[2] if self._frame else 0)
        missing = wanted - len(self._buffer)
        self._buffer += view[:missing]
        view = view[missing:]
        if len(self._buffer) == PREFIX.size and self._frame is None:
            self._frame = self._check_prefix()
            wanted += self._frame[2]
        if self._frame is not None and len(self._buffer) == wanted:
            self._begin_payload()
        return view

    def _check_prefix(self) -> tuple[int, int, int, int]:
        magic, version, kind, number, header, payload = PREFIX.unpack(self._buffer)
        if magic != MAGIC:
            raise WireError(f"not a frame: it begins with {bytes(magic)!r}")
        if version != PROTOCOL:
            raise WireError(f"protocol version {version}; this process speaks {PROTOCOL}")
        if kind != CHUNK and kind not in _KINDS:
            raise WireError(f"unknown kind of message: {kind}")
        if header > MAX_HEADER_BYTES or (kind == CHUNK and header):
            raise WireError(f"a header of {header} bytes; at most {MAX_HEADER_BYTES} are taken")
        if payload > CHUNK_BYTES:
            raise WireError(f"a frame with {payload} bytes of payload; at most {CHUNK_BYTES}")
        return kind, number, header, payload

    def _begin_payload(self) -> None:
        assert self._frame is not None
        kind, number, _, payload = self._frame
        header = bytes(self._buffer[PREFIX.size :])
        self._buffer.clear()
        self._frame = None
        if kind == CHUNK:
            if number not in self._partials:
                raise WireError(f"a chunk of message {number}, which was never begun")
        else:
            self._begin_message(kind, number, header)
        self._filling = self._partials[number]
        self._number = number
        self._fill_left = payload
        if payload > len(self._filling.payload) - self._filling.filled:
            raise WireError(f"message {number} has more payload than its tensors need")
        if kind == CHUNK and not payload:
            raise WireError("an empty chunk")

    def _begin_message(self, kind: int, number: int, header: bytes) -> None:
        if number in self._partials or len(self._partials) >= MAX_PARTIAL_MESSAGES:
            raise WireError(f"message {number} begins while others are not whole")
        message, descriptors = _decode_header(_KINDS[kind], header)
        size = payload_bytes(descriptors)
        held = sum(len(partial.payload) for partial in self._partials.values())
        if size > self._max_bytes or held + size > 2 * self._max_bytes:
            raise WireError(f"a message of {size} bytes; at most {self._max_bytes} are taken")
        self._partials[number] = Partial(message, descriptors, bytearray(size))

    def _frame_complete(self) -> Iterator[Received]:
        partial, self._filling = self._filling, None
        assert partial is not None
        if partial.filled == len(partial.payload):
            del self._partials[self._number]
            yield partial.finish()


def decode(kind: int, header: bytes) -> Message:
    """A message without tensors from its kind and header. Raises WireError."""
    if kind not in _KINDS:
        raise WireError(f"unknown kind of message: {kind}")
    message, descriptors = _decode_header(_KINDS[kind], header)
    if descriptors:
        raise WireError(f"{type(message).__name__} has tensors where none can be")
    return message


def _decode_header(kind: type[Message], header: bytes) -> tuple[Message, list[Descriptor]]:
    try:
        content = msgpack.unpackb(header, use_list=True, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError(f"{kind.__name__}: the header is not msgpack: {error}") from None
    match content:
        case [list(values), list(descriptors)]:
            return _message(kind, values), descriptors
    raise WireError(f"{kind.__name__}: the header is not [fields, tensors]")


def _message(kind: type[Message], values: list[Any]) -> Message:
    named: Any = kind  # mypy takes no class for hashable
    types_ = _field_types(named)
    if len(values) != len(types_):
        raise WireError(f"{kind.__name__} has {len(types_)} fields, got {len(values)}")
    checked = [
        _check(v, t, f"{kind.__name__}.{n}") for v, (n, t) in zip(values, types_, strict=True)
    ]
    return kind(*checked)


@cache
def _field_types(kind: Any) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(kind)
    return tuple((field.name, hints[field.name]) for field in fields(kind))


def _check(value: Any, wanted: Any, where: str) -> Any:
    """The value with its tuples, if it is exactly of the wanted type. Raises WireError."""
    if wanted is float and type(value) in (int, float):
        return float(value)
    if isinstance(wanted, typing.NewType):
        wanted = wanted.__supertype__
    if wanted in (int, float, str, bool):
        if type(value) is wanted:
            return value
    elif typing.get_origin(wanted) is typing.Literal:
        if value in typing.get_args(wanted):
            return value
    elif isinstance(value, list):
        parts = _part_types(wanted, len(value))
        if parts is not None:
            checked = [_check(v, t, where) for v, t in zip(value, parts, strict=True)]
            return wanted(*checked) if hasattr(wanted, "_fields") else tuple(checked)
    raise WireError(f"{where} cannot be {value!r:.60}")


@cache
def _named_types(wanted: Any) -> list[Any]:
    """Of a NamedTuple's parts. Not to be changed."""
    return list(typing.get_type_hints(wanted).values())


def _part_types(wanted: Any, length: int) -> list[Any] | None:
    """Types of a tuple's or NamedTuple's parts; None when it cannot have so many."""
    if hasattr(wanted, "_fields"):
        parts = _named_types(wanted)
    elif isinstance(wanted, types.GenericAlias) and wanted.__origin__ is tuple:
        arguments = typing.get_args(wanted)
        repeated = len(arguments) == 2 and arguments[1] is Ellipsis
        parts = [arguments[0]] * length if repeated else list(arguments)
    else:
        return None
    return parts if len(parts) == length else None
