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

from swarmrt.ids import MicrobatchId, SeatId
from swarmrt.messages import Backward, Path
from swarmrt.scheduler.peer.seat import Seat

BYTES = 6  # of a seal: it cannot be tried out but by messages
NONE = bytes(BYTES)  # for whoever is no member

_ENCODER = msgspec.msgpack.Encoder()


def key_of(secret: bytes, peer: SeatId) -> str:
    """Return a member's key, in hex."""
    return blake2b(peer.encode(), key=secret, digest_size=16).hexdigest()


def sealed(epoch: int, microbatch: MicrobatchId, path: Path, need: tuple[int, ...]) -> bytes:
    """Return what the seals of a grant are made of."""
    step, index, _ = microbatch
    return blake2b(_ENCODER.encode((epoch, step, index, path, need)), digest_size=16).digest()


def seal(key: bytes, what: bytes) -> bytes:
    """Return the seal of a grant for the member with that key."""
    return blake2b(key + what, digest_size=BYTES).digest()


def is_key(key: str) -> bool:
    """Say whether that is a key, or none."""
    return not key or re.fullmatch("[0-9a-f]{32}", key) is not None


def is_granted(message: Backward, seat: Seat) -> bool:
    """Say whether the trainer has granted a microbatch this path: it has this peer's seal."""
    if not seat.key:
        return True
    what = sealed(message.epoch, message.microbatch, message.path, message.need)
    at = 2 * BYTES * seat.stage
    shown = message.seals[at : at + 2 * BYTES]
    return compare_digest(shown.encode(), seal(seat.key, what).hex().encode())
