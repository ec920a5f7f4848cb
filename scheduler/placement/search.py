"""A search for the placement with the shortest step.

It begins with peers in the order of their places, so that the replicas of a stage are near each
other, cut into stages by speed; and, for it may be better, with speeds alone. Then it swaps, moves,
leaves out and takes in peers for as long as that helps. Swaps from a random start never come to
what the structured one has.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from swarmrt.scheduler.placement.facts import Job, Network, Placement
from swarmrt.scheduler.placement.step_time import StepTime, Timing

WORTH = 1e-9  # of the score, by which a change must be better
RANDOM_PLACEMENTS = 20
SHAKES = 4  # changes
LEAP = 2.0  # times as wide: no accident


class Plan(NamedTuple):
    """A placement, its step, and what a placement at random has on average."""

    placement: Placement
    time: StepTime
    random_s: float
    left_out: tuple[int, ...]

    @property
    def gain(self) -> float:
        """Return how many times longer a step is at random."""
        return self.random_s / self.time.total_s


class CannotPlace(ValueError):
    """There is no placement: as text it says why."""


def plan(
    job: Job,
    network: Network,
    *,
    seed: int = 0,
    most_tries: int = 30_000,
    may_leave_out: bool = True,
) -> Plan:
    """Return the best placement that is found. Raises CannotPlace when a stage would have nobody.

    The same arguments give the same plan.
    """
    _check(job, network)
    timing, rng = Timing(job, network), random.Random(seed)
    search = _Search(job, network, timing, rng, most_tries, may_leave_out)
    starts = [
        *_starts(job, network, rng),
        *(_without_narrow(job, network) if may_leave_out else ()),
    ]
    share = most_tries // (len(starts) + 1)
    best = min((search.improve(start, share) for start in starts), key=timing.score)
    while search.tries_left > 0:
        other = search.improve(search.shaken(best), search.tries_left)
        best = min(best, other, key=timing.score)
    at_random = [timing.of(p).total_s for p in random_placements(job, network, rng)]
    out = set(range(len(network.names))) - {peer for peers in best for peer in peers}
    mean_s = sum(at_random) / len(at_random)
    return Plan(best, timing.of(best), mean_s, tuple(sorted(out)))


def random_placements(job: Job, network: Network, rng: random.Random) -> list[Placement]:
    """Return placements of as many peers for each stage as its cost asks for, at random."""
    return [
        _dealt(job, network, rng.sample(range(len(network.names)), len(network.names)))
        for _ in range(RANDOM_PLACEMENTS)
    ]


def _check(job: Job, network: Network) -> None:
    number = len(network.names)
    if number < len(job.stages):
        raise CannotPlace(f"{len(job.stages)} stages need as many peers; there are {number}")
    for stage, cost in enumerate(job.stages):
        if not any(network.fits(job, peer, stage) for peer in range(number)):
            most = max(network.memory_bytes)
            raise CannotPlace(
                f"stage {stage} needs {cost.memory_bytes / 1e9:.1f} GB, and the largest peer has "
                f"{most / 1e9:.1f} GB: cut the model into more stages"
            )


# ---------------------------------------------------------------------- where it begins


def _starts(job: Job, network: Network, rng: random.Random) -> Iterator[Placement]:
    yield _dealt(job, network, _by_place(network))
    yield _evenly(job, network, _by_place(network))
    by_speed = sorted(range(len(network.names)), key=lambda peer: -network.speeds[peer])
    yield _spread(job, network, by_speed)
    yield _dealt(job, network, rng.sample(by_speed, len(by_speed)))


def _without_narrow(job: Job, network: Network) -> Iterator[Placement]:
    """Leave out those whose links are far narrower than all others': while each stage has one of
    them, leaving out a single one helps nobody. It is where the widths leap the most."""
    widths = [statistics.median(row) for row in network.bytes_per_s]
    order = sorted(range(len(widths)), key=lambda peer: (widths[peer], peer))
    most = len(order) - len(job.stages)
    leaps = [widths[order[i + 1]] / widths[order[i]] for i in range(most)]
    if leaps and max(leaps) >= LEAP:
        kept = set(order[leaps.index(max(leaps)) + 1 :])
        yield _dealt(job, network, [peer for peer in _by_place(network) if peer in kept])


def _by_place(network: Network) -> list[int]:
    """Return the peers, each after the one that it is nearest to; the best connected one first."""
    left = set(range(len(network.names)))
    mean_delay_s = [sum(row) / len(row) for row in network.delay_s]
    peer = min(left, key=lambda p: (mean_delay_s[p], p))
    order = []
    while True:
        order.append(peer)
        left.discard(peer)
        if not left:
            return order
        here = peer
        peer = min(
            left,
            key=lambda p: (
                network.delay_s[here][p],
                -network.bytes_per_s[here][p],
                p,
            ),
        )


def _dealt(job: Job, network: Network, order: Sequence[int]) -> Placement:
    """Cut an order of peers into stages, each with speed by its cost, and at least one peer."""
    total_cost = sum(cost.compute_s for cost in job.stages)
    total_speed = sum(network.speeds[peer] for peer in order)
    stages: list[list[int]] = [[] for _ in job.stages]
    stage, speed, wanted = 0, 0.0, 0.0
    for place, peer in enumerate(order):
        if not stages[stage]:
            wanted += job.stages[stage].compute_s / total_cost * total_speed
        stages[stage].append(peer)
        speed += network.speeds[peer]
        left = len(order) - place - 1
        more = len(stages) - stage - 1
        if more and (speed >= wanted - 1e-9 or left <= more):
            stage += 1
    return _fitting(job, network, stages)


def _evenly(job: Job, network: Network, order: Sequence[int]) -> Placement:
    """Cut an order of peers into stages of as many peers, whatever their speeds: so that peers of
    one place stay together."""
    number, stages = len(order), len(job.stages)
    ends = [round(stage * number / stages) for stage in range(stages + 1)]
    return _fitting(job, network, [list(order[a:b]) for a, b in itertools.pairwise(ends)])


def _spread(job: Job, network: Network, order: Sequence[int]) -> Placement:
    """Give each peer in turn to the stage that is the slowest so far, of those that it fits."""
    stages: list[list[int]] = [[] for _ in job.stages]
    speeds = [0.0] * len(stages)
    for peer in order:
        fits = [s for s in range(len(stages)) if network.fits(job, peer, s)]
        if fits:
            slowest = min(fits, key=lambda s: (speeds[s] / job.stages[s].compute_s, s))
            stages[slowest].append(peer)
            speeds[slowest] += network.speeds[peer]
    return _fitting(job, network, stages)


def _fitting(job: Job, network: Network, stages: list[list[int]]) -> Placement:
    """Leave out whom its stage does not fit, and give a bare stage the peer that fits it best."""
    kept = [[p for p in peers if network.fits(job, p, s)] for s, peers in enumerate(stages)]
    for stage in sorted(range(len(kept)), key=lambda s: -job.stages[s].memory_bytes):
        if kept[stage]:
            continue
        fits = [p for p in range(len(network.names)) if network.fits(job, p, stage)]
        sizes = {peer: len(peers) for peers in kept for peer in peers}
        taken = max(fits, key=lambda p: (sizes.get(p, math.inf), network.speeds[p], -p))
        for peers in kept:
            if taken in peers:
                peers.remove(taken)
        kept[stage] = [taken]
    if not all(kept):
        raise CannotPlace("too few peers have the memory that the stages need")
    return tuple(tuple(sorted(peers)) for peers in kept)


# ---------------------------------------------------------------------- how it goes on


class _Search:
    """Changes placements for the better, with so many tries in all."""

    def __init__(
        self,
        job: Job,
        network: Network,
        timing: Timing,
        rng: random.Random,
        tries: int,
        may_leave_out: bool,
    ) -> None:
        self.tries_left = tries
        self._job, self._network, self._timing, self._rng = job, network, timing, rng
        self._may_leave_out = may_leave_out

    def improve(self, placement: Placement, tries: int) -> Placement:
        """Take any change that is better, in a random order, until none is or all tries are
        used."""
        best, until = self._timing.score(placement), self.tries_left - tries
        improved = True
        while improved and self.tries_left > until:
            improved = False
            for change in self._changes(placement):
                self.tries_left -= 1
                changed = _changed(self._job, self._network, placement, change)
                if changed is not None:
                    score = self._timing.score(changed)
                    if score < best * (1 - WORTH):
                        placement, best, improved = changed, score, True
                if self.tries_left <= until:
                    break
        return placement

    def shaken(self, placement: Placement) -> Placement:
        """Return it after some changes, whatever they cost: what is best near it may not be the
        best (iterated local search: Lourenço, Martin and Stützle, 2003)."""
        self.tries_left -= 1
        for change in self._changes(placement)[:SHAKES]:
            placement = _changed(self._job, self._network, placement, change) or placement
        return placement

    def _changes(self, placement: Placement) -> list[Change]:
        number = len(self._network.names)
        changes = list(_changes(self._job, placement, number, self._may_leave_out))
        self._rng.shuffle(changes)
        return changes


class Change(NamedTuple):
    """Put `peer` into stage `to`, and `other` of that stage, if anybody, where it was."""

    peer: int
    to: int  # -1: it is left out
    other: int = -1


def _changes(job: Job, placement: Placement, number: int, may_leave_out: bool) -> Iterator[Change]:
    serves = {peer: stage for stage, peers in enumerate(placement) for peer in peers}
    for peer in range(number):
        stage = serves.get(peer, -1)
        if may_leave_out and stage != -1:
            yield Change(peer, -1)
        for to in range(len(job.stages)):
            if to != stage:
                yield Change(peer, to)
                yield from (Change(peer, to, other) for other in placement[to] if other > peer)


def _changed(job: Job, network: Network, placement: Placement, change: Change) -> Placement | None:
    """Return the placement after a change; None if it is no longer one, or does not fit."""
    stages = [list(peers) for peers in placement]
    was = next((s for s, peers in enumerate(placement) if change.peer in peers), -1)
    if was == change.to or (change.other != -1 and change.other not in stages[change.to]):
        return None
    if was != -1:
        stages[was].remove(change.peer)
    if change.other != -1:
        stages[change.to].remove(change.other)
        if was != -1:
            if not network.fits(job, change.other, was):
                return None
            stages[was].append(change.other)
    if change.to != -1:
        if not network.fits(job, change.peer, change.to):
            return None
        stages[change.to].append(change.peer)
    if not all(stages):
        return None
    return tuple(tuple(sorted(peers)) for peers in stages)
