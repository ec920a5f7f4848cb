"""The kinds of frames by their numbers: messages, and what the ends of a link say themselves."""

from __future__ import annotations

from typing import cast

from swarmrt.messages import ALL_MESSAGES, Message, MessageBase
from swarmrt.wire.headers import HeaderFormat, skip_header
from swarmrt.wire.tensors import Descriptor

CHUNK = 0
MOVED = 252
MOVING = 253
JOIN = 254
HELLO = 255
KINDS = 256


class Hello(MessageBase, frozen=True):
    """The first frame each way. These fields are the first ones of it in all versions."""

    least: int  # version that the sender speaks
    most: int
    run: str
    beacon_key: str  # in hex, to seal beacons to the sender with; empty when it takes none by UDP
    beacon_addresses: tuple[str, ...]  # IP:PORT, where it takes them
    stream_key: str  # to join this link with; empty when it takes no further connections
    shown: str  # a statement of the run's owner about the sender; empty when it has none
    process: str = ""  # a word that another process of this peer does not have; or empty


class Join(MessageBase, frozen=True):
    """The first frame of a further connection for a link, in place of a hello; and its answer."""

    stream_key: str


class Moving(MessageBase, frozen=True):
    """The question if all that was said on this connection has come: then another one is written
    to."""

    number: int


class Moved(MessageBase, frozen=True):
    """The answer, on the same connection."""

    number: int


class Unknown(MessageBase, frozen=True):
    """A message of a kind that this process does not know. What it says is not kept."""

    kind: int


OF_CONNECTIONS = (Moving, Moved)
"""Between the ends of a link themselves, whoever they are."""

Framed = Message | Moving | Moved | Hello | Join

NUMBERS: dict[type[MessageBase], int] = {
    **{kind: number for number, kind in enumerate(ALL_MESSAGES, 1)},
    Moved: MOVED,
    Moving: MOVING,
    Join: JOIN,
    Hello: HELLO,
}


class UnknownFormat:
    """The way in which the header of a kind that is not known is read: as far as it takes to find
    the end of the message."""

    def __init__(self, kind: int) -> None:
        self._kind, self._message = kind, cast(Message, Unknown(kind))

    def decode(self, header: bytes | memoryview) -> tuple[Message, tuple[Descriptor, ...]]:
        """Skip a header. Raises WireError."""
        return self._message, skip_header(self._kind, header)


WRITTEN = {number: HeaderFormat(kind) for kind, number in NUMBERS.items()}
"""The formats of what this process says, by the number of the kind."""

READ = [WRITTEN.get(number) or UnknownFormat(number) for number in range(KINDS)]
"""The formats of whatever comes, by the number of the kind."""
