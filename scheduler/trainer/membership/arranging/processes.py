"""The processes that serve where it helps most, as they are known: what they offer, where they are
to serve, what they were asked for, and for how long they rest after what they have not done."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from swarmrt.ids import PeerId
from swarmrt.messages import Offer
from swarmrt.scheduler.instructions import ReportArranged
from swarmrt.scheduler.timing.times import MOVE_AGAIN_S, OFFERS_S, TAKE_S

MOST_KNOWN = 4096  # processes: the rest are not arranged
MOST_DOUBLINGS = 6  # half an hour


@dataclass(slots=True)
class Order:
    """A word to a process to take a seat or to give it up, until it is followed."""

    stage: int
    takes: bool
    reason: str
    due_at: float
    said_at: float


@dataclass(slots=True)
class Process:
    peer: PeerId
    offer: Offer
    heard_at: float
    is_away: bool = False  # its link is broken
    is_barred: bool = False  # one of its seats has done something: it is no time to move
    place: int | None = None  # the stage that it is to serve
    placed_at: float = 0.0
    stays_until: float = -math.inf  # there, by somebody's wish
    aim: int | None = None  # the stage that it loads, to serve it
    order: Order | None = None
    loads_since: dict[int, float] = field(default_factory=dict)  # by stage, at our word
    failures: int = 0  # in a row
    told: ReportArranged | None = None  # what people know of it
    rests_until: float = 0.0
    told_s: float = OFFERS_S  # the longest interval of offers that it was told to keep

    @property
    def every_s(self) -> float:
        """Return within which time its next offer follows, by its own word: that is believed as far
        as this trainer has told it to take its time."""
        return min(max(self.offer.every_s, OFFERS_S), self.told_s)

    def ask(self, stage: int, reason: str, now: float, *, takes: bool) -> Order:
        """Take note that it is told to take a seat, or to give it up."""
        self.order = order = Order(stage, takes, reason, now + TAKE_S, now)
        if takes:
            self.loads_since[stage] = now
        else:
            self.loads_since.pop(stage, None)
        return order

    def put(self, stage: int | None, now: float) -> None:
        """Let it serve there."""
        self.place, self.placed_at, self.aim = stage, now, None

    def fails(self, now: float) -> None:
        """Leave it in peace for a while: it has not done what it was asked for."""
        doublings = min(self.failures, MOST_DOUBLINGS)
        self.failures, self.order, self.aim = self.failures + 1, None, None
        self.stays_until = -math.inf
        self.rests_until = now + MOVE_AGAIN_S * 2**doublings

    def rests(self, now: float) -> bool:
        return now < self.rests_until


class Processes:
    """All that are known, in the order in which they came."""

    def __init__(self) -> None:
        self._known: dict[PeerId, Process] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Process]:
        return iter(list(self._known.values()))

    def get(self, peer: PeerId) -> Process | None:
        return self._known.get(peer)

    def hear(self, peer: PeerId, offer: Offer, now: float) -> Process | None:
        """Take its word; return it, or None where there are too many."""
        process = self._known.get(peer)
        if process is None:
            if len(self._known) >= MOST_KNOWN:
                return None
            process = self._known[peer] = Process(peer, offer, now)
        process.offer, process.heard_at, process.is_away = offer, now, False
        return process

    def forget(self, peer: PeerId) -> None:
        self._known.pop(peer, None)
