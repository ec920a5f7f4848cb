"""Datagrams: one small message each, sealed with a key that both ends have agreed on by a link.

    8 bytes  which key     8 bytes  counter     1 byte  kind     header     16 bytes  seal

The seal is BLAKE2b with that key (Saarinen and Aumasson, RFC 7693, section 2.9) over all before it.
A counter is used once with a key, and only a higher one than the last is taken, so nothing can be
replayed. What is said can be read by others, but not forged.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct

from swarmrt.errors import WireError
from swarmrt.messages import Message
from swarmrt.wire.reading import decode
from swarmrt.wire.writing import encode

MAX_BYTES = 1200  # goes through every path in one piece
HEAD = struct.Struct(">8sQB")
SEAL_BYTES = 16
ACK = 0  # the kind of an answer: the datagram with this counter has come


class Key:
    """Seals datagrams of one direction, and their answers."""

    def __init__(self, secret: bytes) -> None:
        """Raises WireError when it is not of 32 bytes."""
        if len(secret) != 32:
            raise WireError(f"a key for beacons of {len(secret)} bytes, not 32")
        self.secret = secret
        self.name = hashlib.blake2b(secret, digest_size=8).digest()

    @classmethod
    def new(cls) -> Key:
        return cls(secrets.token_bytes(32))

    def seal(self, counter: int, message: Message | None) -> bytes:
        """A datagram; without a message it is an answer. The message has no tensors."""
        kind, header = ACK, b""
        if message is not None:
            outgoing = encode(message)
            kind, header = outgoing.kind, outgoing.header
        datagram = HEAD.pack(self.name, counter, kind) + header
        return datagram + self._seal_of(datagram)

    def open(self, datagram: bytes) -> tuple[int, Message | None]:
        """Counter, and the message or None for an answer. Raises WireError for a forged one."""
        sealed, seal = datagram[:-SEAL_BYTES], datagram[-SEAL_BYTES:]
        if len(sealed) < HEAD.size or not hmac.compare_digest(seal, self._seal_of(sealed)):
            raise WireError("a datagram that is not sealed with the key it names")
        _, counter, kind = HEAD.unpack_from(sealed)
        return counter, None if kind == ACK else decode(kind, sealed[HEAD.size :])

    def _seal_of(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, key=self.secret, digest_size=SEAL_BYTES).digest()


def key_name(datagram: bytes) -> bytes | None:
    """Return the name of the key that a datagram says it is sealed with; None when it is not
    ours."""
    if not HEAD.size + SEAL_BYTES <= len(datagram) <= MAX_BYTES:
        return None
    return datagram[:8]
