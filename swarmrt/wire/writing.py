"""Messages on their way out: which frame of which of them comes next."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch

from swarmrt.ids import BETWEEN_PROCESSES, Seats
from swarmrt.messages import Message
from swarmrt.wire.frames import (
    CHUNK_BYTES,
    TALLIED,
    Tally,
    prefix_of,
)
from swarmrt.wire.kinds import CHUNK, NUMBERS, WRITTEN, Framed
from swarmrt.wire.ranks import BULK, CONTROL, PARTS, STATE, Turns, bulk_rank
from swarmrt.wire.tensors import encode_tensors


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message on its way out: what is left to be written."""

    message: Message
    kind: int
    header: bytes
    pieces: deque[memoryview]
    left_bytes: int
    rank: int  # of `ranks`
    seats: Seats = BETWEEN_PROCESSES
    number: int = 0
    begun: bool = False

    @property
    def is_control(self) -> bool:
        return self.rank == CONTROL


_NO_PIECES: deque[memoryview] = deque(maxlen=0)


def encode(
    message: Framed,
    tensors: Sequence[torch.Tensor] = (),
    seats: Seats = BETWEEN_PROCESSES,
) -> Outgoing:
    """Ready to be pushed into a FrameWriter. Tensors must stay as they are until written."""
    number = NUMBERS[type(message)]
    header = WRITTEN[number].encode(message, tensors)
    said = cast(Message, message)  # nobody asks what has become of a greeting
    if not tensors:
        return Outgoing(said, number, header, _NO_PIECES, 0, CONTROL, seats)
    pieces = encode_tensors(tensors)
    left = sum(piece.nbytes for piece in pieces)
    rank = bulk_rank(said)
    if left <= CHUNK_BYTES // 4 and rank != PARTS:
        rank = CONTROL
    return Outgoing(said, number, header, deque(pieces), left, rank, seats)


class FrameWriter:
    """Orders frames by their ranks, and those of one rank in the order of pushing."""

    def __init__(self, tally: Tally | None = None, frame_bytes: int = CHUNK_BYTES) -> None:
        """`frame_bytes` is the most that a frame of bulk has, before the next may be another's."""
        self.tally = tally or Tally()
        self.frame_bytes = frame_bytes
        self._queues: tuple[deque[Outgoing], ...] = tuple(deque() for _ in (CONTROL, *BULK))
        self._control = self._queues[CONTROL]
        self._turns = Turns()
        self._number = 0
        self.queued_bytes = 0
        self.finishes = False  # nothing of bulk is begun any more

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    @property
    def waiting(self) -> list[int]:
        """Return the ranks of which a frame can be written now."""
        return [rank for rank, queue in enumerate(self._queues) if queue and self._may_go(queue)]

    def _may_go(self, queue: deque[Outgoing]) -> bool:
        return not self.finishes or queue is self._control or queue[0].begun

    @property
    def has_begun(self) -> bool:
        """Return whether a message is written in part."""
        return any(queue[0].begun for queue in self._bulk_queues())

    def _bulk_queues(self) -> list[deque[Outgoing]]:
        """Return those of bulk that are not empty, in the order of their ranks."""
        return [queue for queue in self._queues if queue and queue is not self._control]

    @property
    def has_next(self) -> bool:
        """Return whether a frame can be written now."""
        return bool(self._control) or (self.has_begun if self.finishes else len(self) > 0)

    def push(self, outgoing: Outgoing) -> None:
        self.queued_bytes += outgoing.left_bytes
        self._queues[outgoing.rank].append(outgoing)

    def _next_queue(self) -> deque[Outgoing]:
        """Return that of the next frame. Raises IndexError when none can be written."""
        if self._control:
            return self._control
        waiting = self.waiting
        if not waiting:
            raise IndexError("no frame can be written now")
        rank = self._turns.next(waiting)
        self._turns.took(rank, waiting)
        return self._queues[rank]

    def next_frames(self, rank: int | None = None) -> list[bytes | memoryview]:
        """Buffers of the control frames that wait, as far as they are small, or of the next frame
        of bulk: of this rank, or of the one whose turn it is here.

        Raises IndexError when none can be written.
        """
        buffers = self.next_frame(rank)
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
        prefix = prefix_of(outgoing.kind, self._number, len(outgoing.header), 0, outgoing.seats)
        return [prefix + outgoing.header]

    def next_frame(self, rank: int | None = None) -> list[bytes | memoryview]:
        """Buffers of the next frame. Raises IndexError when none can be written."""
        queue = self._next_queue() if rank is None else self._queues[rank]
        outgoing = queue[0]
        kind, header, seats = CHUNK, b"", BETWEEN_PROCESSES
        if not outgoing.begun:
            outgoing.begun, kind, header = True, outgoing.kind, outgoing.header
            seats = outgoing.seats
            outgoing.number = self._number = (self._number + 1) % (1 << 32)
        if not outgoing.pieces:
            queue.popleft()
            return [prefix_of(kind, outgoing.number, len(header), 0, seats) + header]
        body = _take(outgoing.pieces, self.frame_bytes)
        size = sum(piece.nbytes for piece in body)
        outgoing.left_bytes -= size
        self.queued_bytes -= size
        if isinstance(outgoing.message, TALLIED):
            self.tally.went(size)
        prefix = prefix_of(kind, outgoing.number, len(header), size, seats)
        if outgoing.left_bytes == 0:
            queue.popleft()
        return [prefix + header, *body]

    def last_waiting(self) -> Outgoing | None:
        """The last message of bulk that was not begun, of those that go first."""
        lasts = (queue[-1] for queue in self._bulk_queues())
        return next((last for last in lasts if not last.begun), None)

    def take_waiting(self) -> Outgoing | None:
        """The first bulk message that was not begun, to be pushed into another writer."""
        for queue in self._bulk_queues():
            if not queue[-1].begun:
                place = int(queue[0].begun)
                outgoing = queue[place]
                del queue[place]
                self.queued_bytes -= outgoing.left_bytes
                return outgoing
        return None

    def take_begun(self) -> list[Outgoing]:
        """Take out messages that were begun and are not written to their end: on another
        connection they would have to begin again."""
        begun = [queue.popleft() for queue in self._bulk_queues() if queue[0].begun]
        self.queued_bytes -= sum(outgoing.left_bytes for outgoing in begun)
        return begun

    def chunks(self) -> list[Outgoing]:
        """Return the messages of state that wait or are under way."""
        return list(self._queues[STATE])

    def bulk(self) -> list[Outgoing]:
        """Return the messages of work, of rounds and of state that wait or are under way."""
        return [outgoing for queue in self._bulk_queues() for outgoing in queue]

    def unsent(self) -> list[Outgoing]:
        """Messages that were not written to their end."""
        return [outgoing for queue in self._queues for outgoing in queue]


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
