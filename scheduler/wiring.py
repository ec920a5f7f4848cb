"""Stochastic wiring: which replica of the next stage gets the next microbatch.

Interleaved weighted round-robin (Ryabinin et al. 2023, "SWARM parallelism", section 3.2): each
replica has an account of expected seconds handed to it; the next microbatch goes to the lowest
account, which is charged at once. Over time every replica gets work in proportion to its rate.
Ours enters a newcomer at the median account rather than at the top of the queue, and draws ties
from a seeded generator. And it leans on the queues: estimates are some percent off, and shares that
are would lengthen one replica's queue until another has nothing to do. So a replica that says that
its queue is longer than the others' is charged more, and one with a shorter queue less.
"""

from __future__ import annotations

import heapq
import random
import statistics
from dataclasses import dataclass, field

from swarmrt.ids import PeerId
from swarmrt.scheduler.estimate import Estimate, is_duration

EVEN_OUT_S = 2.0  # in which queues come to be equal; longer than news of them take
EVEN_OUT_MICROBATCHES = 8  # and not in fewer of them, if they take long
MOST_LEAN = 0.5  # of a charge: all replicas go on getting work, and are heard of


@dataclass(slots=True)
class Replica:
    """What is known of one replica."""

    account_s: float
    tie: float
    service: Estimate = field(default_factory=Estimate)
    backlog_s: float | None = None  # by its last answer
    blocked_until: float = 0.0


class Wiring:
    """The replicas of one stage, as seen from one sender. O(log n) a choice."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._replicas: dict[PeerId, Replica] = {}
        self._heap: list[tuple[float, float, PeerId]] = []
        self._backlogs = 0  # replicas whose backlog is known
        self._backlogs_s = 0.0  # their sum

    def __len__(self) -> int:
        return len(self._replicas)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._replicas

    @property
    def peers(self) -> tuple[PeerId, ...]:
        return tuple(self._replicas)

    def add(self, peer: PeerId) -> None:
        if peer in self._replicas:
            return
        accounts = [replica.account_s for replica in self._replicas.values()]
        account_s = statistics.median(accounts) if accounts else 0.0
        self._replicas[peer] = Replica(account_s, self._rng.random())
        self._push(peer)

    def remove(self, peer: PeerId) -> None:
        self._set_backlog(peer, None)
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

    def observe(self, peer: PeerId, service_s: float, backlog_s: float | None = None) -> None:
        """The replica took this long for a microbatch, and has so much work waiting."""
        sound = is_duration(service_s) and (backlog_s is None or is_duration(backlog_s))
        if peer in self._replicas and sound and service_s > 0:
            self._replicas[peer].service.add(service_s)
            self._set_backlog(peer, backlog_s)

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

    def _set_backlog(self, peer: PeerId, backlog_s: float | None) -> None:
        replica = self._replicas.get(peer)
        if replica is None:
            return
        if replica.backlog_s is not None:
            self._backlogs -= 1
            self._backlogs_s -= replica.backlog_s
        if backlog_s is not None:
            self._backlogs += 1
            self._backlogs_s += backlog_s
        replica.backlog_s = backlog_s

    def _lean(self, peer: PeerId, expected_s: float) -> float:
        """What it is charged more or less, as a share, for its queue to come to the mean."""
        backlog_s = self._replicas[peer].backlog_s
        if backlog_s is None:
            return 0.0
        even_out_s = max(EVEN_OUT_S, EVEN_OUT_MICROBATCHES * expected_s)
        lean = (backlog_s - self._backlogs_s / self._backlogs) / even_out_s
        return min(MOST_LEAN, max(-MOST_LEAN, lean))

    def _charge(self, peer: PeerId) -> None:
        replica, expected_s = self._replicas[peer], self.expected_s(peer)
        replica.account_s += expected_s * (1 + self._lean(peer, expected_s))
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
