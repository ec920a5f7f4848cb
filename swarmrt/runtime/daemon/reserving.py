"""Reserving a place at a relay: one message each way, of libp2p's circuit relay, version 2."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter

from swarmrt.errors import RunError

PROTOCOL = "/libp2p/circuit/relay/0.2.0/hop"
RESERVE = b"\x02\x08\x00"  # a message of two bytes: its type, the field with number 1, is 0
STATUS_OK = 100
MIN_RELAYED_BYTES = 1 << 30  # of one connection: what ends sooner is of no use for training
MAX_ANSWER_BYTES = 4096


class OfNoUse(RunError):
    """A relay that lets too little through to train by it."""


async def reserve(reader: StreamReader, writer: StreamWriter) -> None:
    """Reserve a place at a relay, or renew it, on a stream of PROTOCOL, which is closed then.

    Raises OfNoUse when it ends connections soon, RunError when it gives no place, or OSError.
    """
    try:
        writer.write(RESERVE)
        await writer.drain()
        answer = await _read_message(reader)
    finally:
        writer.close()
    fields = _parse(answer)
    status, limit = fields.get(5), fields.get(4, b"")
    if status != STATUS_OK:
        raise RunError(f"it refuses with status {status!r}")
    data = _parse(limit).get(2, 0) if isinstance(limit, bytes) else 0
    if isinstance(data, int) and 0 < data < MIN_RELAYED_BYTES:
        raise OfNoUse(f"it ends connections after {data} bytes")


async def _read_message(reader: StreamReader) -> bytes:
    """Return a message that follows its length. Raises RunError or EOFError."""
    prefix = b""
    while not prefix or prefix[-1] & 0x80:
        if len(prefix) > 2:
            raise RunError("its answer is too long")
        prefix += await reader.readexactly(1)
    size, _ = _varint(prefix, 0)
    if size > MAX_ANSWER_BYTES:
        raise RunError(f"its answer has {size} bytes")
    return await reader.readexactly(size)


def _parse(message: bytes) -> dict[int, int | bytes]:
    """Return the numbers and byte strings of a protobuf message, by field. Raises RunError."""
    found: dict[int, int | bytes] = {}
    at = 0
    try:
        while at < len(message):
            tag, at = _varint(message, at)
            value, at = _varint(message, at)
            match tag & 7:
                case 0:
                    found[tag >> 3] = value
                case 2:
                    found[tag >> 3] = message[at : at + value]
                    at += value
                case kind:
                    raise RunError(f"its answer has a field of kind {kind}")
    except IndexError:
        raise RunError("its answer is cut off") from None
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a number, and where the next one begins. Raises IndexError."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
