"""Stochastic wiring: which replica of the next stage gets the next microbatch.

Interleaved weighted round-robin (Ryabinin et al. 2023, "SWARM parallelism", section 3.2): each
replica has an account of expected seconds handed to it; the next microbatch goes to the lowest
account, which is charged at once. Over time every replica gets work in proportion to its rate.
Ours enters a newcomer at the median account rather than at the top of the queue, and draws ties
from a seeded generator. And it leans on the queues: estimates are some percent off, and shares that
are would lengthen one replica's queue until another has nothing to do. So a replica that says that
its queue is longer than the others' is charged more, and one with a shorter queue less.

What a replica says of its speed is not enough. A sender sees when something comes of what it has
handed over, and how far apart that is; who says less than half of it is charged that half, or what
the others say if that is less: where another stage is the slowest, that is what is measured. Where
there are other senders it may be four times as fast as the others by its own word. Of whom nothing
comes is charged twice as much each time.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from swarmrt.ids import SeatId
from swarmrt.scheduler.timing.estimate import Estimate

EVEN_OUT_S = 2.0  # in which queues come to be equal; longer than news of them take
EVEN_OUT_MICROBATCHES = 8  # and not in fewer of them, if they take long
MOST_LEAN = 0.5  # of a charge: all replicas go on getting work, and are heard of
TIMES_AS_FAST = 4  # as the others a replica may be, by its own word, beside other senders
MOST_MISSED = 6  # doublings of a charge: one in 64 shows that it works again
MOST_S = 1e6  # that a replica may say: sums of greater ones lose the small ones


@dataclass(slots=True)
class Replica:
    """The facts that are known of one replica."""

    account_s: float
    tie: float
    service: Estimate = field(default_factory=Estimate)
    backlog_s: float | None = None  # by its last answer
    blocked_until: float = 0.0
    measured: Estimate = field(default_factory=Estimate)  # between signs of its work
    sign_at: float = 0.0  # the newest
    missed: int = 0  # microbatches of which nothing came, less those of which something did


class Wiring:
    """The replicas of one stage, as seen from one sender. O(log n) a choice."""

    def __init__(self, rng: random.Random, *, is_only_sender: bool = True) -> None:
        """Who is one of several senders sees only a part of what the replicas do."""
        self._rng = rng
        self._believed = 1 if is_only_sender else TIMES_AS_FAST
        self._replicas: dict[SeatId, Replica] = {}
        self._heap: list[tuple[float, float, SeatId]] = []
        self._backlogs = 0  # replicas whose backlog is known
        self._backlogs_s = 0.0  # their sum

    def __len__(self) -> int:
        return len(self._replicas)

    def __contains__(self, peer: SeatId) -> bool:
        return peer in self._replicas

    @property
    def peers(self) -> tuple[SeatId, ...]:
        return tuple(self._replicas)

    def set_peers(self, peers: Iterable[SeatId]) -> None:
        """Exactly these serve the stage now."""
        wanted = sorted(set(peers))
        for peer in [known for known in self._replicas if known not in wanted]:
            self.remove(peer)
        for peer in wanted:
            self.add(peer)

    def add(self, peer: SeatId) -> None:
        if peer in self._replicas:
            return
        accounts = [replica.account_s for replica in self._replicas.values()]
        account_s = statistics.median(accounts) if accounts else 0.0
        self._replicas[peer] = Replica(account_s, self._rng.random())
        self._push(peer)

    def remove(self, peer: SeatId) -> None:
        self._set_backlog(peer, None)
        self._replicas.pop(peer, None)  # its heap entry is skipped when it comes up

    def choose(self, now: float) -> SeatId | None:
        """The replica for one more microbatch, charged for it; None if none can take work."""
        blocked: list[tuple[float, float, SeatId]] = []
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

    def observe(self, peer: SeatId, service_s: float, backlog_s: float | None = None) -> None:
        """The replica says that a microbatch takes it so long, and that so much work waits."""
        replica = self._replicas.get(peer)
        if replica is not None and 0 < service_s <= MOST_S:
            replica.service.add(service_s)
            is_backlog = backlog_s is not None and 0 <= backlog_s <= MOST_S
            self._set_backlog(peer, backlog_s if is_backlog else None)

    def came_back(self, peer: SeatId, pushed_at: float, now: float) -> None:
        """The first sign of a microbatch since it was handed to the replica."""
        replica = self._replicas.get(peer)
        if replica is None:
            return
        replica.measured.add(max(0.0, now - max(pushed_at, replica.sign_at)))
        replica.sign_at = now
        replica.missed = max(0, replica.missed - 1)

    def never_came(self, peer: SeatId) -> None:
        """A microbatch that was handed to the replica is long overdue."""
        replica = self._replicas.get(peer)
        if replica is not None:
            replica.missed = min(replica.missed + 1, MOST_MISSED)

    def block(self, peer: SeatId, until: float) -> None:
        """The replica refused work or could not be reached: nothing more for it until then."""
        if peer in self._replicas:
            self._replicas[peer].blocked_until = until

    def expected_s(self, peer: SeatId) -> float:
        """Expected seconds of one microbatch; an unproven replica's is the median of the proven."""
        replica = self._replicas[peer]
        if not replica.service.samples:
            return self._median_of_others(peer, 1.0) * (1 << replica.missed)
        said_s, least_s = replica.service.mean_s, replica.measured.mean_s / 2
        if said_s < least_s:
            usual_s = self._median_of_others(peer, math.inf)
            said_s = max(said_s, min(least_s, usual_s / self._believed))
        if replica.missed:  # what it has said so far is worth nothing
            said_s = max(said_s, self._median_of_others(peer, said_s))
        return said_s * (1 << replica.missed)

    def _median_of_others(self, peer: SeatId, unknown_s: float) -> float:
        """Return the median of what the others say that a microbatch takes."""
        proven = [
            other.service.mean_s
            for its_peer, other in self._replicas.items()
            if its_peer != peer and other.service.samples
        ]
        return statistics.median(proven) if proven else unknown_s

    def _set_backlog(self, peer: SeatId, backlog_s: float | None) -> None:
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

    def _lean(self, peer: SeatId, expected_s: float) -> float:
        """Return what it is charged more or less, as a share, for its queue to come to the mean."""
        backlog_s = self._replicas[peer].backlog_s
        if backlog_s is None:
            return 0.0
        even_out_s = max(EVEN_OUT_S, EVEN_OUT_MICROBATCHES * expected_s)
        lean = (backlog_s - self._backlogs_s / self._backlogs) / even_out_s
        return min(MOST_LEAN, max(-MOST_LEAN, lean))

    def _charge(self, peer: SeatId) -> None:
        replica, expected_s = self._replicas[peer], self.expected_s(peer)
        replica.account_s += expected_s * (1 + self._lean(peer, expected_s))
        replica.tie = self._rng.random()
        self._push(peer)

    def _push(self, peer: SeatId) -> None:
        replica = self._replicas[peer]
        heapq.heappush(self._heap, (replica.account_s, replica.tie, peer))

    def validate(self) -> None:
        """Check that each replica has exactly one live entry in the heap."""
        live = [
            entry[2]
            for entry in self._heap
            if entry[2] in self._replicas
            and entry[:2] == (self._replicas[entry[2]].account_s, self._replicas[entry[2]].tie)
        ]
        assert sorted(live) == sorted(self._replicas), (live, self._replicas)
