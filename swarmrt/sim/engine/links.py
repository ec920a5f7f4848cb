"""Bytes over the links of the simulated world: how many a message has, and how long they take.

Each host has an uplink and a downlink, which are shared, in equal parts, by the pairs of hosts
between which bulk is on its way. Between two hosts it goes as out of a real outbox: control goes
first, and waits for the end of one chunk at the most; then work, parts of rounds, and state, in
shares while they wait together, each in the order of sending (`wire.ranks`).
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from swarmrt.ids import PeerId, peer_of
from swarmrt.messages import Message, Part, StateChunk
from swarmrt.scheduler.instructions import (
    GradientPart,
    InputGrad,
    Output,
    Payload,
    UpdatedPart,
)
from swarmrt.sim.engine.clock import Clock
from swarmrt.wire.ranks import BULK, STATE, bulk_rank, shares

CHUNK_BYTES = 256 << 10  # between two chances for a control message
CONTROL_BYTES = CHUNK_BYTES // 4  # what has no more goes before bulk
NOTHING_LEFT = 0.5  # bytes: times are floating-point numbers

Pair = tuple[PeerId, PeerId]  # sender, receiver
Lane = tuple[PeerId, PeerId, int]  # and the rank of what goes there


@dataclass(frozen=True)
class Link:
    """The connection of a host: by default as in a machine room."""

    up_bytes_per_s: float = 125e6
    down_bytes_per_s: float = 125e6
    latency_s: float = 0.0005  # its share of what a message takes in one direction


MACHINE_ROOM = Link()


@dataclass(frozen=True)
class Sizes:
    """The sizes of what each stage has, and sends."""

    state_bytes: int  # of a snapshot
    gradient_bytes: int  # of a stage, as it travels
    activation_bytes: int  # of a microbatch, between two stages

    def of(self, payload: Payload | None) -> int:
        match payload:
            case GradientPart(_, _, _, parts):
                return self.gradient_bytes // parts
            case UpdatedPart(_, _, _, parts):
                return self.state_bytes // parts
            case Output() | InputGrad():
                return self.activation_bytes
        return 0  # token ids are control


@dataclass(slots=True)
class Bulk:
    """A message on its way."""

    message: Message
    left_bytes: float
    arrived: Callable[[], None]
    of: PeerId
    to: PeerId


class Wires:
    """All bulk that is on its way, and when it will be there."""

    def __init__(self, clock: Clock, links: Mapping[PeerId, Link]) -> None:
        self.links = dict(links)
        self._clock = clock
        self._queues: dict[Lane, deque[Bulk]] = {}  # none is empty
        self._rates: dict[Lane, float] = {}  # bytes a second, of the first in each queue
        self._still: Counter[PeerId] = Counter()  # hosts of which nothing moves, and why often
        self._moved_at = 0.0
        self._came: defaultdict[PeerId, float] = defaultdict(float)  # bytes of parts and states
        self._went: defaultdict[Pair, float] = defaultdict(float)
        self._states: defaultdict[Pair, float] = defaultdict(float)  # bytes of states alone
        self._plans = 0

    def link(self, host: PeerId) -> Link:
        return self.links.get(peer_of(host), MACHINE_ROOM)

    def latency_s(self, one: PeerId, other: PeerId) -> float:
        return self.link(one).latency_s + self.link(other).latency_s

    def control_waits_s(self, pair: Pair) -> float:
        """Return how long control waits for the chunk of bulk that is being written between these
        two, in seconds."""
        lanes = [lane for lane in self._lanes(pair) if self._rates[lane]]
        if not lanes:
            return 0.0
        self._move()
        rate = sum(self._rates[lane] for lane in lanes)
        return min(CHUNK_BYTES, *(self._queues[lane][0].left_bytes for lane in lanes)) / rate

    def moved_bytes(self, host: PeerId) -> tuple[int, int, int]:
        """Return what has come to a host and gone from it, of parts and states, and what waits."""
        gone = self.gone(host)
        went, left = sum(link[1] for link in gone), sum(link[2] for link in gone)
        return round(self._came[host]), went, left

    def gone(self, host: PeerId) -> list[tuple[PeerId, int, int]]:
        """Return for each other host what has gone to it of parts and states, and what waits to."""
        self._move()
        left: Counter[PeerId] = Counter()
        for (one, other, _), queue in self._queues.items():
            if one == host:
                left[other] += round(sum(bulk.left_bytes for bulk in queue))
        went = {other: carried for (one, other), carried in self._went.items() if one == host}
        return [(other, round(went.get(other, 0)), left[other]) for other in {**went, **left}]

    def state_bytes(self, pair: Pair) -> int:
        """Return how much of states has come from one to the other."""
        self._move()
        return round(self._states[pair])

    def carries(self, pair: Pair, message: Message) -> bool:
        """Return whether this very message is on its way there."""
        queues = (self._queues[lane] for lane in self._lanes(pair))
        return any(bulk.message == message for queue in queues for bulk in queue)

    def _lanes(self, pair: Pair) -> list[Lane]:
        lanes = [(*pair, rank) for rank in BULK]
        return [lane for lane in lanes if lane in self._queues]

    def push(self, pair: Pair, bulk: Bulk) -> None:
        self._move()
        lane = (*pair, bulk_rank(bulk.message))
        queue = self._queues.setdefault(lane, deque())
        queue.append(bulk)
        if len(queue) == 1:
            self._plan()

    def drop(self, pair: Pair) -> list[Bulk]:
        """Break their link, and return what was on its way and is lost."""
        lanes = self._lanes(pair)
        if not lanes:
            return []
        self._move()
        queues = [self._queues.pop(lane) for lane in lanes]
        self._plan()
        return [bulk for queue in queues for bulk in queue]

    def pairs_of(self, host: PeerId) -> list[Pair]:
        """Return the pairs between which something is on its way to this host or from it."""
        pairs = dict.fromkeys((one, other) for one, other, _ in self._queues)
        return [pair for pair in pairs if host in pair]

    def hold(self, host: PeerId) -> None:
        """Let nothing go on to it and from it until it is let go as often."""
        self._move()
        self._still[host] += 1
        self._plan()

    def let_go(self, host: PeerId) -> None:
        self._move()
        self._still[host] -= 1
        self._plan()

    def _move(self) -> None:
        """Carry what there was time for since the last time."""
        elapsed_s = self._clock.now - self._moved_at
        self._moved_at = self._clock.now
        if elapsed_s:
            for lane, queue in self._queues.items():
                one, other, rank = lane
                carried = self._rates[lane] * elapsed_s
                queue[0].left_bytes -= carried
                if isinstance(queue[0].message, Part | StateChunk):
                    self._went[one, other] += carried
                    self._came[other] += carried
                if rank == STATE:
                    self._states[one, other] += carried

    def _plan(self) -> None:
        """Share the links anew, and come back when the next message is through."""
        moving = [
            lane for lane in self._queues if not (self._still[lane[0]] or self._still[lane[1]])
        ]
        pairs = dict.fromkeys((one, other) for one, other, _ in moving)
        up, down = Counter(pair[0] for pair in pairs), Counter(pair[1] for pair in pairs)
        self._rates = dict.fromkeys(self._queues, 0.0)
        for lane in moving:
            one, other, rank = lane
            up_rate = self.link(one).up_bytes_per_s / up[one]
            down_rate = self.link(other).down_bytes_per_s / down[other]
            share = shares([lane[-1] for lane in self._lanes((one, other))])[rank]
            self._rates[lane] = share * min(up_rate, down_rate)
        self._plans += 1
        plan = self._plans
        if moving:
            soonest_s = min(self._queues[lane][0].left_bytes / self._rates[lane] for lane in moving)
            self._clock.after(soonest_s, lambda: self._come_through(plan))

    def _come_through(self, plan: int) -> None:
        if plan != self._plans:
            return  # something has changed since
        self._move()
        through = [
            lane for lane, queue in self._queues.items() if queue[0].left_bytes < NOTHING_LEFT
        ]
        whole = [self._queues[lane].popleft() for lane in through]
        for lane in through:
            if not self._queues[lane]:
                del self._queues[lane]
        self._plan()
        for bulk in whole:
            bulk.arrived()
