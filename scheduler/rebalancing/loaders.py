"""Peers that may load one more state now: where they are, by speed."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

from swarmrt.scheduler.rebalancing.assignment import Assignment, Entry
from swarmrt.scheduler.rebalancing.limits import download_s, may_load
from swarmrt.scheduler.rebalancing.swarm import Swarm


class Loaders:
    """Peers that load nothing, and whose states nobody's plan counts on."""

    def __init__(self, swarm: Swarm, assignment: Assignment, reserved: Iterable[int]) -> None:
        self._swarm = swarm
        self._taken = set(reserved)
        self._at: dict[int, list[Entry]] = {}
        for number, peer in enumerate(swarm.peers):
            if peer.loading is None and number not in self._taken:
                self._at.setdefault(assignment.place(number), []).append((peer.rate, number))
        for entries in self._at.values():
            entries.sort()

    def slowest(self, place: int, stage: int, least: float) -> int | None:
        """Return the slowest peer of a place that may load a stage and has this speed at least."""
        entries = self._at.get(place, [])
        for at in range(bisect.bisect_left(entries, (least, -1)), len(entries)):
            number = entries[at][1]
            if number not in self._taken and self.may(number, stage):
                return number
        return None

    def may(self, number: int, stage: int) -> bool:
        """Return whether a peer may load a stage if it forgets what it does not serve."""
        peer = self._swarm.peers[number]
        kept = () if peer.serving is None else (peer.serving,)
        return may_load(self._swarm, peer, stage, kept)

    def seconds(self, number: int, stage: int) -> float:
        return download_s(self._swarm.peers[number], self._swarm.stages[stage])

    def is_free(self, number: int) -> bool:
        return number not in self._taken and self._swarm.peers[number].loading is None

    def take(self, number: int) -> None:
        self._taken.add(number)

    def put_back(self, number: int) -> None:
        self._taken.discard(number)
