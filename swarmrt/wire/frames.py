"""Frames: the unit of bytes between two processes. Sans-I/O.

    prefix   24 bytes, big-endian: magic "SWRT" · framing u8 · kind u8 · two zero bytes ·
             message u32 · header length u32 · payload length u32 · seats u16, u16
    header   msgpack: [fields of the message, tensor descriptors]
    payload  the first bytes of the message's payload, up to a chunk

A payload that is longer than a chunk goes on in CHUNK frames of the same message number, which
have no header. Frames of other messages may come between them, so a control message never waits
for bulk. Everything is bounded before anything is allocated, and memory is taken as it is filled.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from swarmrt.errors import WireError
from swarmrt.ids import BETWEEN_PROCESSES, Seats
from swarmrt.messages import Message, Part, StateChunk
from swarmrt.wire.kinds import CHUNK

FRAMING = 4  # the version of frames as such, in which versions of the protocol are agreed on
MAGIC = b"SWRT"
PREFIX = struct.Struct(">4sBBxxIIIHH")
CHUNK_BYTES = 256 << 10  # between two chances for a control message
LEAST_CHUNK_BYTES = 16 << 10  # of a frame that is not a message's last: frames cost time

TALLIED: tuple[type[Message], ...] = (Part, StateChunk)


class Tally:
    """The bytes of parts and states that have come and gone, also of messages that are not whole.

    They are what others wait for while they move. What goes over a link counts for the whole
    process too.
    """

    def __init__(self, whole: Tally | None = None) -> None:
        self.came_bytes = 0
        self.went_bytes = 0
        self._whole = whole

    def went(self, size_bytes: int) -> None:
        self.went_bytes += size_bytes
        if self._whole is not None:
            self._whole.went(size_bytes)


class Prefix(NamedTuple):
    kind: int
    number: int
    header_bytes: int
    payload_bytes: int
    seats: Seats


def prefix_of(
    kind: int,
    number: int,
    header_bytes: int,
    payload_bytes: int,
    seats: Seats = BETWEEN_PROCESSES,
) -> bytes:
    """Return the first bytes of a frame."""
    sizes = (header_bytes, payload_bytes)
    return PREFIX.pack(MAGIC, FRAMING, kind, number, *sizes, seats.of + 1, seats.to + 1)


def checked_prefix(data: memoryview | bytearray, most_header_bytes: int) -> Prefix:
    """Return what a prefix says. Raises WireError."""
    magic, framing, kind, number, header, payload, of, to = PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise WireError(f"not a frame: it begins with {bytes(magic)!r}")
    if framing != FRAMING:
        older = "this process" if framing > FRAMING else "the other end"
        raise WireError(
            f"a frame of version {framing}, and this process reads version {FRAMING}: "
            f"update swarmrt of {older}"
        )
    if header > most_header_bytes or (kind == CHUNK and header):
        raise WireError(f"a header of {header} bytes; at most {most_header_bytes} are taken")
    if payload > CHUNK_BYTES:
        raise WireError(f"a frame with {payload} bytes of payload; at most {CHUNK_BYTES}")
    seats = Seats(of - 1, to - 1) if of or to else BETWEEN_PROCESSES
    return Prefix(kind, number, header, payload, seats)
