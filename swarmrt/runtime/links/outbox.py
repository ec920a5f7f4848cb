"""The messages on their way to other processes, until they are written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from swarmrt.ids import PeerId
from swarmrt.messages import Part
from swarmrt.runtime.carriers.carriers import Connection
from swarmrt.runtime.faults.faults import Late
from swarmrt.runtime.limits.uplink import Share
from swarmrt.runtime.links.streams import Streams
from swarmrt.wire.frames import CHUNK_BYTES, Tally
from swarmrt.wire.ranks import STATE
from swarmrt.wire.writing import FrameWriter, Outgoing

MAX_QUEUED_BYTES = 1 << 30  # to one peer; more means that it reads too slowly for more work
MAX_QUEUED_MESSAGES = 100_000
MAX_QUEUED_CHUNKS = 8  # of state: four times as many as one process asks for at a time


@dataclass(eq=False)
class Move:
    """A change to another connection."""

    to: Connection
    number: int
    timer: asyncio.TimerHandle | None = None  # until the other end has answered, once it is asked


class Outbox:
    """The messages on their way to one peer."""

    def __init__(self, tally: Tally, frame_bytes: int = CHUNK_BYTES) -> None:
        """`tally` is that of the process."""
        self.tally = Tally(tally)
        self.frames = FrameWriter(self.tally, frame_bytes)
        self.share = Share()
        self.wake = asyncio.Event()
        self.connection: Connection | None = None
        self.task: asyncio.Task[None] | None = None
        self.late: Late | None = None  # once the link has been slow
        self.streams: Streams | None = None  # once the other end has said that it takes them
        self.move: Move | None = None  # while it changes over to another connection
        self.looks_for_better = False  # a connection than the one that it has

    @property
    def may_write(self) -> bool:
        """Return whether there is a frame that may be written now."""
        return self.frames.has_next and (self.move is None or self.move.timer is None)

    def stay(self) -> None:
        """Give a change of connections up."""
        if self.move is not None and self.move.timer is not None:
            self.move.timer.cancel()
        self.move, self.frames.finishes = None, False

    def __len__(self) -> int:
        late = len(self.late) if self.late is not None else 0
        return len(self.frames) + late + len(self.on_streams())

    @property
    def queued_bytes(self) -> int:
        further = self.streams.queued_bytes if self.streams is not None else 0
        return self.frames.queued_bytes + further

    def is_full_for(self, outgoing: Outgoing) -> bool:
        """Parts are slices of a gradient that this process holds anyway, all sent at once."""
        if len(self.frames) > MAX_QUEUED_MESSAGES:
            return True
        if outgoing.rank == STATE and len(self.frames.chunks()) >= MAX_QUEUED_CHUNKS:
            return True
        is_bounded = outgoing.is_control or isinstance(outgoing.message, Part)
        return not is_bounded and self.queued_bytes > MAX_QUEUED_BYTES

    def is_on_its_way(self, outgoing: Outgoing) -> bool:
        """Return whether this piece of state or of work is on its way there already: who waits for
        it on a narrow link asks again, and sending it twice would only take longer. No part of a
        round is asked for twice."""
        if outgoing.is_control or isinstance(outgoing.message, Part):
            return False
        what = (outgoing.message, outgoing.seats)
        on_its_way = (*self.frames.bulk(), *self.on_streams())
        return any((other.message, other.seats) == what for other in on_its_way)

    def on_streams(self) -> list[Outgoing]:
        return self.streams.unsent() if self.streams is not None else []


class Gathering:
    """Outboxes that are written to once the outermost `with` of it ends."""

    def __init__(
        self, write: Callable[[dict[PeerId, Outbox]], None], before: Callable[[], None]
    ) -> None:
        self.depth = 0
        self.outboxes: dict[PeerId, Outbox] = {}
        self._write, self._before = write, before

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        if self.depth or not self.outboxes:
            return
        self._before()
        gathered, self.outboxes = self.outboxes, {}
        self._write(gathered)
