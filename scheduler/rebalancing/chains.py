"""The cheapest chain of moves that lifts one stage to a level and leaves no other below it.

A stage that is helped takes a peer from another one. If that is then below the level, it takes a
peer from a third, and so on, until a stage can spare one, somebody idle comes, or the first stage
itself gives a slower one. These are augmenting paths, as in matching; what a stage still needs
takes the place of a free edge. Of all peers that are fast enough the slowest goes: it leaves the
smallest gap. Labels are settled in order of seconds of download, then of moves (Dijkstra).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass

from swarmrt.scheduler.rebalancing.assignment import Assignment, Move
from swarmrt.scheduler.rebalancing.loaders import Loaders

Chain = tuple[Move, ...]


@dataclass(frozen=True, slots=True)
class _Label:
    """A chain that is not finished: its last stage needs so much speed more."""

    stage: int
    need: float
    path: Chain
    seconds: float = 0.0
    is_finished: bool = False
    spare: float = 0.0  # that the last stage keeps above the level


def find_chain(
    assignment: Assignment, start: int, level: float, longest: int, loaders: Loaders | None = None
) -> Chain:
    """Return the cheapest chain of at most `longest` moves, or none if there is no chain.

    With loaders a peer may also go where it first has to load the state.
    """
    search = _Search(assignment, start, level, loaders)
    return search.run(longest)


def find_move(assignment: Assignment, start: int, level: float) -> Chain:
    """Return the one move without a download that lifts a stage furthest, if not above a level."""
    best: Chain = ()
    best_rate = now = assignment.rates[start]
    compute = assignment.stages[start].compute
    for place in range(len(assignment.rates), -1, -1):
        wanted = level - now
        if place != assignment.idle:
            if assignment.counts[place] <= assignment.stages[place].least_replicas:
                continue
            wanted = min(wanted, (assignment.rates[place] - now) / 2)
        peer = assignment.nearest(place, start, wanted * compute) if wanted > 0 else None
        if peer is not None and place != start:
            chain = (Move(peer, place, start),)
            if (rate := level_of(assignment, chain)) > best_rate:
                best, best_rate = chain, rate
    return best


def level_of(assignment: Assignment, chain: Chain) -> float:
    """Return the rate of the slowest stage that a chain touches, when it has been made."""
    rates: dict[int, float] = {}
    for move in chain:
        to, place = move.to_stage, move.from_place
        gained = assignment.rate_at(move.peer, to)
        rates[to] = rates.get(to, assignment.rates[to]) + gained
        if place != assignment.idle:
            lost = assignment.rate_at(move.peer, place)
            rates[place] = rates.get(place, assignment.rates[place]) - lost
    return min(rates.values())


class _Search:
    def __init__(
        self, assignment: Assignment, start: int, level: float, loaders: Loaders | None
    ) -> None:
        self._assignment = assignment
        self._start = start
        self._level = level
        self._loaders = loaders
        self._heap: list[tuple[float, int, float, int, _Label]] = []
        self._order = 0
        self._least: dict[int, float] = {}  # need with which a stage has been settled so far
        self._waiting: dict[int, tuple[float, tuple[float, int]]] = {}  # and its newest label

    def run(self, longest: int) -> Chain:
        least = self._least
        self._push(_Label(self._start, self._speed_for(self._start, 0.0), ()))
        while self._heap:
            label = heapq.heappop(self._heap)[-1]
            if label.is_finished:
                return label.path
            if label.need >= least.get(label.stage, math.inf) or len(label.path) == longest:
                continue
            least[label.stage] = label.need
            for move, seconds in self._moves(label):
                self._follow(label, move, label.seconds + seconds)
        return ()

    def _push(self, label: _Label) -> None:
        self._order += 1
        key = (label.seconds, len(label.path), -label.spare, self._order, label)
        heapq.heappush(self._heap, key)

    def _speed_for(self, stage: int, lost: float) -> float:
        """Return the speed that a peer must have to fill a stage that has lost such a rate."""
        short = self._level - (self._assignment.rates[stage] - lost)
        return max(0.0, short) * self._assignment.stages[stage].compute * (1 - 1e-12)

    def _moves(self, label: _Label) -> Iterator[tuple[Move, float]]:
        """Yield whoever may come to the stage of a label, from each place, with the seconds."""
        used = {move.peer for move in label.path}
        visited = {move.to_stage for move in label.path if move.to_stage != self._start}
        for place in range(len(self._assignment.rates), -1, -1):  # the idle first
            if place == label.stage or place in visited:
                continue
            peer = self._assignment.slowest(place, label.stage, label.need)
            if peer is not None and peer not in used:
                yield Move(peer, place, label.stage), 0.0
            if self._loaders is not None:
                peer = self._loaders.slowest(place, label.stage, label.need)
                if peer is not None and peer not in used:
                    seconds = self._loaders.seconds(peer, label.stage)
                    yield Move(peer, place, label.stage, is_download=True), seconds

    def _follow(self, label: _Label, move: Move, seconds: float) -> None:
        """Note what a move leads to: an end, or another stage that needs somebody."""
        assignment, place = self._assignment, move.from_place
        path = (*label.path, move)
        if place == assignment.idle:
            self._push(_Label(place, 0.0, path, seconds, True, math.inf))
            return
        lost = assignment.rate_at(move.peer, place)
        if place == self._start:
            gained = assignment.rate_at(path[0].peer, place)
            spare = assignment.rates[place] + gained - lost - self._level
            if spare >= 0 and not assignment.lacks(place):
                self._push(_Label(place, 0.0, path, seconds, True, spare))
            return
        spare = assignment.rates[place] - lost - self._level
        keeps_enough = assignment.counts[place] > assignment.stages[place].least_replicas
        if spare >= 0 and keeps_enough:
            self._push(_Label(place, 0.0, path, seconds, True, spare))
        else:
            need, cost = self._speed_for(place, lost), (seconds, len(path))
            least, its_cost = self._waiting.get(place, (math.inf, cost))
            if need < least or cost < its_cost:
                self._waiting[place] = need, cost
                self._push(_Label(place, need, path, seconds))
