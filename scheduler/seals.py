"""Seals: by them a peer knows that the trainer has granted a microbatch.

Rules:
- Each member has a key, which the trainer makes of its secret and the member's id, and tells it
  when it admits it. So nobody makes a seal for somebody else.
- A grant has a seal for each member of its path, which go up the path with the gradients. One that
  was not granted, or to another path, has none that fits.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from hmac import compare_digest

import msgspec

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Backward, Path
from swarmrt.scheduler.seat import Seat

CHARACTERS = 16  # of a seal, in hex: it cannot be tried out but by messages
NONE = "-" * CHARACTERS  # for whoever is no member


def key_of(secret: bytes, peer: PeerId) -> str:
    """Return a member's key, in hex."""
    return blake2b(peer.encode(), key=secret, digest_size=16).hexdigest()


def sealed(epoch: int, microbatch: MicrobatchId, path: Path, need: tuple[int, ...]) -> bytes:
    """Return what the seals of a grant are made of."""
    return msgspec.msgpack.encode((epoch, microbatch.step, microbatch.index, path, need))


def seal(key: bytes, what: bytes) -> str:
    """Return the seal of a grant for the member with that key."""
    return blake2b(what, key=key, digest_size=CHARACTERS // 2).hexdigest()


def is_key(key: str) -> bool:
    """Whether that is a key, or none."""
    return not key or re.fullmatch("[0-9a-f]{32}", key) is not None


def is_granted(message: Backward, seat: Seat) -> bool:
    """Whether the trainer has granted this path to a microbatch: it has this peer's seal."""
    if not seat.key:
        return True
    what = sealed(message.epoch, message.microbatch, message.path, message.need)
    at = CHARACTERS * seat.stage
    return compare_digest(
        message.seals[at : at + CHARACTERS].encode(), seal(seat.key, what).encode()
    )
