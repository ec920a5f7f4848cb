"""The share of its capacity that a large swarm comes to by its wiring alone.

Stages of many replicas, each with a production `Wiring` of its own, in virtual time. A microbatch
goes forward through all stages and backward on the same way; a replica computes one thing at a
time, backward first. There are no steps, no messages of the protocol and no failures: what is left
of the capacity is what wiring loses.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from swarmrt.ids import SeatId
from swarmrt.scheduler.peer.work.pace import BACKWARD_COST
from swarmrt.scheduler.timing.times import REWIRE_S
from swarmrt.scheduler.trainer.work.window import Window
from swarmrt.scheduler.wiring.policy import BUILT_IN, policy_of
from swarmrt.scheduler.wiring.stochastic import Wiring

FORWARD_SHARE = 1 / 3  # of a service
BEACON_S = 1.0  # between two looks of the trainer at what waits where
TRAINER = SeatId("trainer")


@dataclass(frozen=True, kw_only=True)
class Swarm:
    """A swarm to be looked at."""

    stages: int = 4
    replicas: int = 312  # of each stage
    fastest_s: float = 0.5  # of a forward and a backward
    spread: float = 8.0  # times as long the slowest one takes
    noise: float = 0.2  # of each computation, as a share
    latency_s: float = 0.05  # of a message
    says_first: bool = True  # a replica says how long it takes before it has computed anything
    holds: int = 0  # microbatches that a replica can hold; 0 for as many as there are
    policy: str = BUILT_IN
    seed: int = 0


@dataclass(slots=True)
class Microbatch:
    route: list[Replica] = field(default_factory=list)
    pushed_at: list[float] = field(default_factory=list)  # to each of the route


class Replica:
    """A replica: it computes what it has taken, and hands it on."""

    def __init__(self, name: SeatId, service_s: float, wiring: Wiring) -> None:
        self.name, self.service_s, self.wiring = name, service_s, wiring
        self.forwards: deque[Microbatch] = deque()
        self.backwards: deque[Microbatch] = deque()
        self.stranded: deque[Microbatch] = deque()  # nobody could take them
        self.is_busy = False
        self.held = self.most_held = 0
        self.computed = 0.0  # microbatches
        self.forward_s = self.backward_s = 0.0  # as it has measured

    @property
    def said_s(self) -> float:
        return self.forward_s + (self.backward_s or BACKWARD_COST * self.forward_s)

    @property
    def backlog_s(self) -> float:
        return len(self.forwards) * self.forward_s + len(self.backwards) * self.backward_s


def rate_of(stage: Sequence[Replica]) -> float:
    """Return how many microbatches a second a stage could do."""
    return sum(1 / replica.service_s for replica in stage)


class Wired:
    """A swarm at work, wired by production code."""

    def __init__(self, swarm: Swarm) -> None:
        self.swarm, self.now, self.landed = swarm, 0.0, 0
        self._rng = random.Random(swarm.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._by_name: dict[SeatId, Replica] = {}
        self.stages = [
            [self._replica(stage, number) for number in range(swarm.replicas)]
            for stage in range(swarm.stages)
        ]
        self._poorest = min(self.stages, key=rate_of)
        self.trainer = Replica(TRAINER, 0.0, self._wiring(TRAINER, is_only_sender=True))
        senders = [[self.trainer], *self.stages]
        for givers, takers in zip(senders, self.stages, strict=False):
            for giver in givers:
                giver.wiring.one_of(len(givers))
                for taker in takers:
                    giver.wiring.add(taker.name, taker.service_s * swarm.says_first)
                    giver.wiring.limit(taker.name, swarm.holds)
        self._window, self._in_flight = Window(), 0
        for name in self._by_name:
            self._window.add(name)
        self._beacons()

    def _replica(self, stage: int, number: int) -> Replica:
        service_s = self.swarm.fastest_s * self.swarm.spread ** self._rng.random()
        name = SeatId(f"peer-{number:04d}/{stage}")
        self._by_name[name] = replica = Replica(name, service_s, self._wiring(name))
        return replica

    def _wiring(self, name: SeatId, *, is_only_sender: bool = False) -> Wiring:
        rng, make = random.Random(f"{self.swarm.seed} {name}"), policy_of(self.swarm.policy)
        return Wiring(rng, is_only_sender=is_only_sender, make_policy=make)

    @property
    def capacity_per_s(self) -> float:
        """Return how many microbatches a second the poorest stage could do."""
        return rate_of(self._poorest)

    @property
    def computed(self) -> float:
        """Return how many microbatches the poorest stage has computed."""
        return sum(replica.computed for replica in self._poorest)

    def shares(self, seconds: float) -> tuple[float, float]:
        """Go on for so long; return which shares of its capacity have landed and were computed
        meanwhile. At first what is computed is on its way."""
        until, landed, computed = self.now + seconds, self.landed, self.computed
        while self._events and self._events[0][0] <= until:
            self.now, _, happens = heapq.heappop(self._events)
            happens()
        self.now = until
        possible = self.capacity_per_s * seconds
        return (self.landed - landed) / possible, (self.computed - computed) / possible

    def _after(self, seconds: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), happens))

    def _beacons(self) -> None:
        """Tell the trainer how many wait where, all at once."""
        for name, replica in self._by_name.items():
            waiting = len(replica.forwards) + len(replica.backwards)
            self._window.heard(name, waiting + replica.is_busy, replica.said_s)
        self._after(BEACON_S, self._beacons)
        self._fill()

    def _fill(self) -> None:
        while self._in_flight < self._window.size:
            self._in_flight += 1
            self._push(self.trainer, Microbatch())

    # ------------------------------------------------------------------ a microbatch's way

    def _push(self, giver: Replica, microbatch: Microbatch) -> None:
        chosen = giver.wiring.choose(self.now, id(microbatch))
        if chosen is None:
            if not giver.stranded:
                self._after(REWIRE_S, lambda: self._push_stranded(giver))
            giver.stranded.append(microbatch)
            return
        taker, pushed_at = self._by_name[chosen], self.now
        self._after(self.swarm.latency_s, lambda: self._comes(giver, taker, microbatch, pushed_at))

    def _push_stranded(self, giver: Replica) -> None:
        stranded, giver.stranded = giver.stranded, deque()
        for microbatch in stranded:
            self._push(giver, microbatch)

    def _comes(self, giver: Replica, taker: Replica, microbatch: Microbatch, at: float) -> None:
        said = taker.said_s, taker.backlog_s
        if self.swarm.holds and taker.held >= self.swarm.holds:
            self._after(
                self.swarm.latency_s, lambda: self._refused(giver, taker, microbatch, *said)
            )
            return
        self._after(self.swarm.latency_s, lambda: self._accepted(giver, taker, *said))
        taker.held += 1
        taker.most_held = max(taker.most_held, taker.held)
        microbatch.route.append(taker)
        microbatch.pushed_at.append(at)
        taker.forwards.append(microbatch)
        self._compute(taker)

    def _accepted(self, giver: Replica, taker: Replica, service_s: float, queue_s: float) -> None:
        giver.wiring.estimates.observe(taker.name, service_s, queue_s)

    def _refused(
        self, giver: Replica, taker: Replica, microbatch: Microbatch, service_s: float, _: float
    ) -> None:
        giver.wiring.estimates.observe(taker.name, service_s)
        giver.wiring.block(taker.name, self.now + max(REWIRE_S, service_s))
        self._push(giver, microbatch)

    def _compute(self, replica: Replica) -> None:
        if replica.is_busy:
            return
        is_backward = bool(replica.backwards)
        queue = replica.backwards if is_backward else replica.forwards
        if not queue:
            return
        microbatch, replica.is_busy = queue.popleft(), True
        share = 1 - FORWARD_SHARE if is_backward else FORWARD_SHARE
        noise = self._rng.uniform(1 - self.swarm.noise, 1 + self.swarm.noise)
        seconds = replica.service_s * share * noise
        done = self._backward_done if is_backward else self._forward_done
        self._after(seconds, lambda: done(replica, microbatch, seconds))

    def _forward_done(self, replica: Replica, microbatch: Microbatch, seconds: float) -> None:
        replica.is_busy, replica.forward_s = False, seconds
        replica.computed += FORWARD_SHARE
        if len(microbatch.route) < self.swarm.stages:
            self._push(replica, microbatch)
        else:
            replica.backwards.append(microbatch)
            first = microbatch.route[0].name
            self.trainer.wiring.estimates.came_back(first, microbatch.pushed_at[0], self.now)
        self._compute(replica)

    def _backward_done(self, replica: Replica, microbatch: Microbatch, seconds: float) -> None:
        replica.is_busy, replica.backward_s = False, seconds
        replica.computed += 1 - FORWARD_SHARE
        replica.held -= 1
        microbatch.route.pop()
        pushed_at = microbatch.pushed_at.pop()
        if microbatch.route:
            giver = microbatch.route[-1]
            self._after(
                self.swarm.latency_s,
                lambda: self._came_back(giver, replica, microbatch, pushed_at),
            )
        else:
            self.landed += 1
            self.trainer.wiring.over(id(microbatch))
            self._window.landed(self._in_flight, more=True)
            self._in_flight -= 1
            self._fill()
        self._compute(replica)

    def _came_back(
        self, giver: Replica, taker: Replica, microbatch: Microbatch, pushed_at: float
    ) -> None:
        giver.wiring.estimates.came_back(taker.name, pushed_at, self.now)
        giver.wiring.over(id(microbatch))
        giver.backwards.append(microbatch)
        self._compute(giver)
