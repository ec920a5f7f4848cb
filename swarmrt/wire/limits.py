"""The limits of what one end of a connection takes of the other, by kind of message.

Before the other end has said hello it is nobody: it gets a small header and no payload. After that
each kind of message has its own bound, from the configuration where that tells it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swarmrt.messages import (
    Backward,
    Facts,
    Forward,
    Message,
    Part,
    Probe,
    Probed,
    Recover,
    StateChunk,
)

WITH_PAYLOAD: tuple[type[Message], ...] = (
    Forward, Backward, Recover, Part, StateChunk, Probe, Probed, Facts,
)  # fmt: skip
"""The kinds of messages that have tensors at all."""

GREETING_HEADER_BYTES = 16 << 10  # a hello has at most 8 addresses, two keys and a few names
MAX_HEADER_BYTES = 1 << 20  # a roster of a thousand replicas


@dataclass(frozen=True)
class Limits:
    """The most that a reader takes. A kind that is not in `payload_bytes` has no payload."""

    header_bytes: int
    payload_bytes: Mapping[type[Message], int]
    largest_bytes: int  # of the payloads of all kinds

    @classmethod
    def each(cls, header_bytes: int, payload_bytes: Mapping[type[Message], int]) -> Limits:
        return cls(header_bytes, payload_bytes, max(payload_bytes.values(), default=0))

    @classmethod
    def of(cls, most_bytes: int, exact: Mapping[type[Message], int] | None = None) -> Limits:
        """Return limits of so many bytes of payload, or fewer for the kinds of which that is
        known."""
        known = exact or {}
        payload_bytes = {k: min(most_bytes, known.get(k, most_bytes)) for k in WITH_PAYLOAD}
        return cls.each(MAX_HEADER_BYTES, payload_bytes)


GREETING = Limits.each(GREETING_HEADER_BYTES, {})
"""For who has not said hello."""
