"""Frames: the unit of bytes between two processes. Sans-I/O.

    prefix   24 bytes, big-endian: magic "SWRT" · framing u8 · kind u8 · two zero bytes ·
             message u32 · header length u32 · payload length u64
    header   msgpack: [fields of the message, tensor descriptors]
    payload  the first bytes of the message's payload, up to a chunk

A payload that is longer than a chunk goes on in CHUNK frames of the same message number, which
have no header. Frames of other messages may come between them, so a control message never waits
for bulk. Everything is bounded before anything is allocated, and memory is taken as it is filled.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch

from swarmrt.errors import WireError
from swarmrt.messages import Message, Part, StateChunk
from swarmrt.wire.kinds import CHUNK, NUMBERS, READ, WRITTEN, Framed, Unknown
from swarmrt.wire.limits import Limits
from swarmrt.wire.memory import Account, unlimited
from swarmrt.wire.ranks import CONTROL, OF_STATE, STATE, WORK, Turns
from swarmrt.wire.tensors import Place, decode_tensors, encode_tensors, new_buffer, places

FRAMING = 3  # the version of frames as such, in which versions of the protocol are agreed on
MAGIC = b"SWRT"
PREFIX = struct.Struct(">4sBBxxIIQ")
CHUNK_BYTES = 256 << 10  # between two chances for a control message
HEAD_BYTES = 4 << 10  # read at once where no payload is due: a control message is one read
LEAST_CHUNK_BYTES = 16 << 10  # of a frame that is not a message's last: frames cost time
MAX_PARTIAL_MESSAGES = 16
GRAIN_BYTES = 2 << 20  # in which payloads take memory: as large as the system's huge pages
Received = tuple[Message, list[torch.Tensor]]


class Tally:
    """The bytes of parts and states that have come and gone, also of messages that are not whole.

    They are what others wait for while they move.
    """

    def __init__(self) -> None:
        self.came_bytes = 0
        self.went_bytes = 0


_TALLIED = (Part, StateChunk)


# ---------------------------------------------------------------------- writing


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message on its way out: what is left to be written."""

    message: Message
    kind: int
    header: bytes
    pieces: deque[memoryview]
    left_bytes: int
    rank: int  # of `ranks`
    number: int = 0
    begun: bool = False

    @property
    def is_control(self) -> bool:
        return self.rank == CONTROL


_NO_PIECES: deque[memoryview] = deque(maxlen=0)


def encode(message: Framed, tensors: Sequence[torch.Tensor] = ()) -> Outgoing:
    """Ready to be pushed into a FrameWriter. Tensors must stay as they are until written."""
    number = NUMBERS[type(message)]
    header = WRITTEN[number].encode(message, tensors)
    said = cast(Message, message)  # nobody asks what has become of a greeting
    if not tensors:
        return Outgoing(said, number, header, _NO_PIECES, 0, CONTROL)
    pieces = encode_tensors(tensors)
    left = sum(piece.nbytes for piece in pieces)
    rank = STATE if isinstance(message, OF_STATE) else WORK
    if left <= CHUNK_BYTES // 4:
        rank = CONTROL
    return Outgoing(said, number, header, deque(pieces), left, rank)


class FrameWriter:
    """Orders frames by their ranks, and those of one rank in the order of pushing."""

    def __init__(self, tally: Tally | None = None) -> None:
        self.tally = tally or Tally()
        self._control: deque[Outgoing] = deque()
        self._work: deque[Outgoing] = deque()
        self._state: deque[Outgoing] = deque()
        self._queues = (self._control, self._work, self._state)
        self._turns = Turns()
        self._number = 0
        self.queued_bytes = 0
        self.finishes = False  # nothing of bulk is begun any more

    def __len__(self) -> int:
        return len(self._control) + len(self._work) + len(self._state)

    @property
    def rank(self) -> int:
        """Return the rank of what is next; control when nothing is queued."""
        if self._control or not len(self):
            return CONTROL
        return WORK if self._work else STATE

    @property
    def has_begun(self) -> bool:
        """Return whether a message is written in part."""
        return any(queue and queue[0].begun for queue in (self._work, self._state))

    @property
    def has_next(self) -> bool:
        """Return whether a frame can be written now."""
        return bool(self._control) or (self.has_begun if self.finishes else len(self) > 0)

    def push(self, outgoing: Outgoing) -> None:
        self.queued_bytes += outgoing.left_bytes
        self._queues[outgoing.rank].append(outgoing)

    def _next_queue(self) -> deque[Outgoing]:
        if self._control:
            return self._control
        if self.finishes:
            return self._work if self._work and self._work[0].begun else self._state
        if not self._state or not self._work:
            return self._work or self._state
        rank = STATE if self._turns.is_states else WORK
        self._turns.took(rank)
        return self._queues[rank]

    def next_frames(self) -> list[bytes | memoryview]:
        """Buffers of the control frames that wait, as far as they are small, or of the next frame
        of bulk.

        Raises IndexError when nothing is queued.
        """
        buffers = self.next_frame()
        if not self._control:
            return buffers
        size = sum(map(len, buffers))
        while self._control and size < CHUNK_BYTES:
            frame = self.next_frame()
            buffers += frame
            size += sum(map(len, frame))
        return buffers

    def alone(self, outgoing: Outgoing) -> list[bytes | memoryview]:
        """Return the frame of a message without payload that does not wait for others."""
        self._number = (self._number + 1) % (1 << 32)
        prefix = PREFIX.pack(MAGIC, FRAMING, outgoing.kind, self._number, len(outgoing.header), 0)
        return [prefix + outgoing.header]

    def next_frame(self) -> list[bytes | memoryview]:
        """Buffers of the next frame. Raises IndexError when nothing is queued."""
        queue = self._next_queue()
        outgoing = queue[0]
        kind, header = CHUNK, b""
        if not outgoing.begun:
            outgoing.begun, kind, header = True, outgoing.kind, outgoing.header
            outgoing.number = self._number = (self._number + 1) % (1 << 32)
        if not outgoing.pieces:
            queue.popleft()
            return [PREFIX.pack(MAGIC, FRAMING, kind, outgoing.number, len(header), 0) + header]
        body = _take(outgoing.pieces, CHUNK_BYTES)
        size = sum(piece.nbytes for piece in body)
        outgoing.left_bytes -= size
        self.queued_bytes -= size
        if isinstance(outgoing.message, _TALLIED):
            self.tally.went_bytes += size
        prefix = PREFIX.pack(MAGIC, FRAMING, kind, outgoing.number, len(header), size)
        if outgoing.left_bytes == 0:
            queue.popleft()
        return [prefix + header, *body]

    def last_waiting(self) -> Outgoing | None:
        """The last message of bulk that was not begun, of those that go first."""
        lasts = (queue[-1] for queue in (self._work, self._state) if queue)
        return next((last for last in lasts if not last.begun), None)

    def take_waiting(self) -> Outgoing | None:
        """The first bulk message that was not begun, to be pushed into another writer."""
        for queue in (self._work, self._state):
            if queue and not queue[-1].begun:
                place = int(queue[0].begun)
                outgoing = queue[place]
                del queue[place]
                self.queued_bytes -= outgoing.left_bytes
                return outgoing
        return None

    def take_begun(self) -> list[Message]:
        """Take out messages that were begun and are not written to their end: on another
        connection they would have to begin again."""
        begun = [queue.popleft() for queue in (self._work, self._state) if queue and queue[0].begun]
        self.queued_bytes -= sum(outgoing.left_bytes for outgoing in begun)
        return [outgoing.message for outgoing in begun]

    def chunks(self) -> list[Message]:
        """Return the messages of state that wait or are under way."""
        return [outgoing.message for outgoing in self._state]

    def bulk(self) -> list[Message]:
        """Return the messages of work and of state that wait or are under way."""
        return [outgoing.message for queue in (self._work, self._state) for outgoing in queue]

    def unsent(self) -> list[Message]:
        """Messages that were not written to their end."""
        return [outgoing.message for queue in self._queues for outgoing in queue]


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


@dataclass(slots=True)
class Partial:
    """A message whose payload is not whole yet."""

    number: int
    message: Message
    places: Sequence[Place]  # of its tensors
    size: int  # of the payload
    payload: memoryview | None  # None when nobody wants it
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
        return PREFIX.size + _checked_prefix(begun, self.limits.header_bytes)[2]

    def _begin_frame(self, data: memoryview) -> int:
        """Begin the frame that these bytes start with, and return how long its prefix and header
        are; 0 when they are not whole."""
        if len(data) < PREFIX.size:
            return 0
        kind, number, header_bytes, payload_bytes = _checked_prefix(data, self.limits.header_bytes)
        end = PREFIX.size + header_bytes
        if len(data) < end:
            return 0
        if kind != CHUNK:
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
            self._partials[number] = Partial(number, message, its_places, size, payload)
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
        if isinstance(partial.message, _TALLIED):
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
        return partial.message, decode_tensors(partial.places, partial.payload)


_NOTHING = memoryview(bytearray())


def _memory(size: int) -> memoryview:
    """Return memory of that size. Raises WireError when the system gives none."""
    try:
        return new_buffer(size)
    except MemoryError:
        raise WireError(f"a message of {size} bytes, for which there is no memory here") from None


def _checked_prefix(
    data: memoryview | bytearray, most_header_bytes: int
) -> tuple[int, int, int, int]:
    """Kind, number, bytes of the header and of the payload. Raises WireError."""
    magic, framing, kind, number, header, payload = PREFIX.unpack_from(data)
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
    return kind, number, header, payload


def decode(kind: int, header: bytes) -> Message:
    """A message without tensors from its kind and header. Raises WireError."""
    message, descriptors = READ[kind].decode(header)
    if descriptors:
        raise WireError(f"{type(message).__name__} has tensors where none can be")
    return message
