"""Stochastic wiring: which replica of the next stage gets the next microbatch.

Interleaved weighted round-robin (Ryabinin et al. 2023, "SWARM parallelism", section 3.2): each
replica has an account of expected seconds handed to it; the next microbatch goes to the lowest
account, which is charged at once. Over time every replica gets work in proportion to its rate.
Ours enters a newcomer at the median account rather than at the top of the queue, and draws ties
from a seeded generator.
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from swarmrt.ids import PeerId
from swarmrt.scheduler.estimate import Estimate


@dataclass(slots=True)
class Replica:
    """What is known of one replica."""

    account_s: float
    tie: float
    service: Estimate = field(default_factory=Estimate)
    blocked_until: float = 0.0


class Wiring:
    """The replicas of one stage, as seen from one sender. O(log n) a choice."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._replicas: dict[PeerId, Replica] = {}
        self._heap: list[tuple[float, float, PeerId]] = []

    def __len__(self) -> int:
        return len(self._replicas)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._replicas

    @property
    def peers(self) -> tuple[PeerId, ...]:
        return tuple(self._replicas)

    def set_peers(self, peers: Iterable[PeerId]) -> None:
        """Exactly these serve the stage now."""
        wanted = sorted(set(peers))
        for peer in [known for known in self._replicas if known not in wanted]:
            self.remove(peer)
        for peer in wanted:
            self.add(peer)

    def add(self, peer: PeerId) -> None:
        if peer in self._replicas:
            return
        accounts = [replica.account_s for replica in self._replicas.values()]
        account_s = statistics.median(accounts) if accounts else 0.0
        self._replicas[peer] = Replica(account_s, self._rng.random())
        self._push(peer)

    def remove(self, peer: PeerId) -> None:
        self._replicas.pop(peer, None)  # its heap entry is skipped when it comes up

    def choose(self, now: float) -> PeerId | None:
        """The replica for one more microbatch, charged for it; None if none can take work."""
        blocked: list[tuple[float, float, PeerId]] = []
        chosen = None
        while self._heap and chosen is None:
            entry = heapq.heappop(self._heap)
            replica = self._replicas.get(entry[2])
            if replica is None or entry[:2] != (replica.account_s, replica.tie):
                continue  # gone, or charged since
            if replica.blocked_until > now:
                blocked.append(entry)
            else:
                chosen = entry[2]
        for entry in blocked:
            heapq.heappush(self._heap, entry)
        if chosen is not None:
            self._charge(chosen)
        return chosen

    def observe(self, peer: PeerId, service_s: float) -> None:
        """The replica took this long for a microbatch."""
        if peer in self._replicas and service_s > 0:
            self._replicas[peer].service.add(service_s)

    def block(self, peer: PeerId, until: float) -> None:
        """The replica refused work or could not be reached: nothing more for it until then."""
        if peer in self._replicas:
            self._replicas[peer].blocked_until = until

    def expected_s(self, peer: PeerId) -> float:
        """Expected seconds of one microbatch; an unproven replica's is the median of the proven."""
        service = self._replicas[peer].service
        if service.samples:
            return service.mean_s
        proven = [r.service.mean_s for r in self._replicas.values() if r.service.samples]
        return statistics.median(proven) if proven else 1.0

    def _charge(self, peer: PeerId) -> None:
        replica = self._replicas[peer]
        replica.account_s += self.expected_s(peer)
        replica.tie = self._rng.random()
        self._push(peer)

    def _push(self, peer: PeerId) -> None:
        replica = self._replicas[peer]
        heapq.heappush(self._heap, (replica.account_s, replica.tie, peer))

    def validate(self) -> None:
        """Each replica has exactly one live entry in the heap."""
        live = [
            entry[2]
            for entry in self._heap
            if entry[2] in self._replicas
            and entry[:2] == (self._replicas[entry[2]].account_s, self._replicas[entry[2]].tie)
        ]
        assert sorted(live) == sorted(self._replicas), (live, self._replicas)
