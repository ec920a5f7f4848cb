"""Bytes on their way in: frames become messages, and cost no more than they may."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from swarmrt.errors import WireError
from swarmrt.ids import BETWEEN_PROCESSES, Seats
from swarmrt.messages import Message, StateChunk
from swarmrt.wire.frames import (
    LEAST_CHUNK_BYTES,
    PREFIX,
    TALLIED,
    Tally,
    checked_prefix,
)
from swarmrt.wire.kinds import CHUNK, READ, Unknown
from swarmrt.wire.limits import Limits
from swarmrt.wire.memory import Account, unlimited
from swarmrt.wire.ranks import CONTROL, bulk_rank
from swarmrt.wire.tensors import Place, decode_tensors, new_buffer, places

HEAD_BYTES = 4 << 10  # read at once where no payload is due: a control message is one read
MAX_PARTIAL_MESSAGES = 16
GRAIN_BYTES = 2 << 20  # in which payloads take memory: as large as the system's huge pages

Received = tuple[Message, list[torch.Tensor]]


@dataclass(slots=True)
class Partial:
    """A message whose payload is not whole yet."""

    number: int
    message: Message
    places: Sequence[Place]  # of its tensors
    size: int  # of the payload
    payload: memoryview | None  # None when nobody wants it
    seats: Seats
    filled: int = 0
    taken: int = 0  # bytes that its account was charged for


Gate = Callable[[Message, int], bool]
"""Whether to take a message with so many bytes of payload. False passes over it, WireError ends the
connection. It is asked about an Unknown one too: who has no use for that has to say so."""

_UNWANTED = memoryview(bytearray(64 << 10))  # where payloads go that nobody wants


def _open_gate(message: Message, payload_bytes: int) -> bool:
    return True


class FrameReader:
    """Bytes come in as they are; whole messages come out. Raises WireError; then close the link.

    Either `feed` it, or read into `get_buffer` and tell `buffer_updated`, so that payloads go from
    the socket to their tensors without a copy in between. `drop` it when the connection ends.

    `limits` may be changed at any time, by the gate too. The `gate` is asked about each message
    once its header is here, before there is any memory for its payload. What messages that are not
    whole hold is charged to the `account`, and the sizes that they announce are at most twice the
    largest limit together.
    """

    def __init__(
        self,
        limits: Limits,
        account: Account | None = None,
        gate: Gate = _open_gate,
        tally: Tally | None = None,
    ) -> None:
        self.limits = limits
        self.came_bytes = 0
        self.came_state_bytes = 0  # of them
        self.header_bytes = 0  # of the message that the gate is asked about
        self.seats = BETWEEN_PROCESSES  # at the ends of that, or of the one that was given last
        self._account = account or unlimited()
        self._gate = gate
        self._tally = tally or Tally()
        self._split = bytearray()  # a prefix and header of which the end has not come yet
        self._partials: dict[int, Partial] = {}
        self._whole: Received | None = None  # what the last frame has made whole
        self._filling: Partial | None = None
        self._fill_left = 0
        self._head = memoryview(bytearray(HEAD_BYTES))
        self._is_dropped = False

    @property
    def is_between_messages(self) -> bool:
        """True if nothing is here of a message that is not whole."""
        return not self._split and not self._partials

    @property
    def rank(self) -> int:
        """Return the rank of what comes next: of a payload that is under way, or control."""
        return CONTROL if self._filling is None else bulk_rank(self._filling.message)

    def drop(self) -> None:
        """Free all that is not whole, and take nothing more."""
        self._is_dropped = True
        self._filling, self._whole = None, None
        self._account.give_back(sum(partial.taken for partial in self._partials.values()))
        self._partials.clear()
        self._split.clear()

    def get_buffer(self) -> memoryview:
        """Return where the next bytes belong: in a payload that is under way, or a small buffer."""
        partial = self._filling
        if partial is None:
            return self._head
        if partial.payload is None:
            return _UNWANTED[: self._fill_left]
        return partial.payload[partial.filled : partial.filled + self._fill_left]

    def buffer_updated(self, size: int) -> Iterator[Received]:
        """Return all messages that are whole with the bytes that are now in `get_buffer`, to be
        iterated to the end before it is called again."""
        if self._filling is None:
            return self.feed(self._head[:size])
        self.came_bytes += size
        whole = self._filled(self._filling, size)
        return iter(() if whole is None else (whole,))

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Received]:
        """Return all messages that are whole with these bytes, to be iterated to the end."""
        view = memoryview(data)
        self.came_bytes += len(view)
        while view and not self._is_dropped:
            if self._filling is not None:
                buffer = self.get_buffer()
                size = min(len(view), len(buffer))
                buffer[:size] = view[:size]
                view = view[size:]
                whole = self._filled(self._filling, size)
            else:
                view = self._read_head(view)
                whole, self._whole = self._whole, None
            if whole is not None:
                yield whole

    def _read_head(self, view: memoryview) -> memoryview:
        """Begin a frame with the bytes at the front; what is left of them. A head that is split
        between reads is collected."""
        if not self._split:
            end = self._begin_frame(view)
            if not end:
                self._split += view
            return view[end or len(view) :]
        missing = self._head_bytes(self._split) - len(self._split)
        self._split += view[:missing]
        if len(self._split) == self._head_bytes(self._split):  # by now the prefix may tell more
            self._begin_frame(memoryview(bytes(self._split)))
            self._split.clear()
        return view[missing:]

    def _head_bytes(self, begun: bytearray) -> int:
        """Return how long a prefix with its header is, as far as that is known."""
        if len(begun) < PREFIX.size:
            return PREFIX.size
        return PREFIX.size + checked_prefix(begun, self.limits.header_bytes).header_bytes

    def _begin_frame(self, data: memoryview) -> int:
        """Begin the frame that these bytes start with, and return how long its prefix and header
        are; 0 when they are not whole."""
        if len(data) < PREFIX.size:
            return 0
        kind, number, header_bytes, payload_bytes, seats = checked_prefix(
            data, self.limits.header_bytes
        )
        end = PREFIX.size + header_bytes
        if len(data) < end:
            return 0
        if kind != CHUNK:
            self.seats = seats
            self._begin_message(kind, number, data[PREFIX.size : end])
        elif not payload_bytes:
            raise WireError("an empty chunk")
        if payload_bytes:
            self._begin_payload(number, payload_bytes)
        return end

    def _begin_message(self, kind: int, number: int, header: memoryview) -> None:
        if number in self._partials or len(self._partials) >= MAX_PARTIAL_MESSAGES:
            raise WireError(f"message {number} begins while others are not whole")
        message, descriptors = READ[kind].decode(header)
        self.header_bytes = len(header)
        if not descriptors:
            if self._gate(message, 0):
                self._whole = message, []
            return
        its_places, size = places(descriptors)
        wanted = self._gate(message, size)
        if size:
            self._check_size(message, size)
            payload = _memory(size) if wanted else None
            self._partials[number] = Partial(number, message, its_places, size, payload, self.seats)
        elif wanted:
            self._whole = message, decode_tensors(its_places, _NOTHING)

    def _check_size(self, message: Message, size: int) -> None:
        """Check that a payload is not larger than those of its kind are. Raises WireError."""
        limits, announced, name = self.limits, size, type(message).__name__
        most = limits.payload_bytes.get(type(message), 0)
        if isinstance(message, Unknown):
            most, name = limits.largest_bytes, f"unknown kind {message.kind}"
        for partial in self._partials.values():
            announced += partial.size
        if size > most or announced > 2 * limits.largest_bytes:
            raise WireError(f"a message of {size} bytes; of {name} at most {most} are taken")

    def _begin_payload(self, number: int, size: int) -> None:
        """Prepare for a payload, which comes next."""
        partial = self._partials.get(number)
        if partial is None and self._whole is None:
            raise WireError(f"a chunk of message {number}, which was never begun")
        left = 0 if partial is None else partial.size - partial.filled
        if partial is None or size > left:
            raise WireError(f"message {number} has more payload than its tensors need")
        if size < LEAST_CHUNK_BYTES and size < left:
            raise WireError(f"{size} bytes of message {number}, and {left} are left")
        needed = partial.filled + size
        if needed > partial.taken and partial.payload is not None:
            grains = -(-needed // GRAIN_BYTES) * GRAIN_BYTES
            more = min(grains, partial.size) - partial.taken
            self._account.take(more)
            partial.taken += more
        self._filling, self._fill_left = partial, size

    def _filled(self, partial: Partial, size: int) -> Received | None:
        """Count so many more bytes of a payload; return the message if it is whole with them."""
        partial.filled += size
        self._fill_left -= size
        if isinstance(partial.message, TALLIED):
            self._tally.came_bytes += size
            if isinstance(partial.message, StateChunk):
                self.came_state_bytes += size
        if self._fill_left:
            return None
        self._filling = None
        if partial.filled < partial.size:
            return None
        del self._partials[partial.number]
        if partial.payload is None:
            return None
        self._account.give_back(partial.taken)
        self.seats = partial.seats
        return partial.message, decode_tensors(partial.places, partial.payload)


_NOTHING = memoryview(bytearray())


def _memory(size: int) -> memoryview:
    """Return memory of that size. Raises WireError when the system gives none."""
    try:
        return new_buffer(size)
    except MemoryError:
        raise WireError(f"a message of {size} bytes, for which there is no memory here") from None


def decode(kind: int, header: bytes) -> Message:
    """A message without tensors from its kind and header. Raises WireError."""
    message, descriptors = READ[kind].decode(header)
    if descriptors:
        raise WireError(f"{type(message).__name__} has tensors where none can be")
    return message
