"""Links of the simulated world: in order on each link, each with a latency of its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from swarmrt.ids import PeerId
from swarmrt.messages import Message
from swarmrt.sim.clock import Clock

Deliver = Callable[[PeerId, Message, Any], None]


class Network:
    def __init__(self, clock: Clock, rng: random.Random, jitter_s: float = 0.02) -> None:
        self._clock = clock
        self._rng = rng
        self._jitter_s = jitter_s
        self._doors: dict[PeerId, Deliver] = {}
        self._latency_s: dict[tuple[PeerId, PeerId], float] = {}
        self._last_arrival: dict[tuple[PeerId, PeerId], float] = {}
        self.messages = 0

    def connect(self, peer: PeerId, deliver: Deliver) -> None:
        """`deliver(sender, message, payload)` is called for every message to this peer."""
        self._doors[peer] = deliver

    def disconnect(self, peer: PeerId) -> None:
        """Nothing reaches this peer any more. What it has sent still arrives."""
        self._doors.pop(peer, None)

    def last_arrival(self, sender: PeerId, to: PeerId) -> float:
        """When the last message on this link arrives, or now."""
        return max(self._clock.now, self._last_arrival.get((sender, to), 0.0))

    def send(self, sender: PeerId, to: PeerId, message: Message, payload: Any) -> None:
        link = (sender, to)
        if link not in self._latency_s:
            self._latency_s[link] = self._rng.uniform(0.001, 0.05)
        latency_s = self._latency_s[link] + self._rng.uniform(0, self._jitter_s)
        arrival = max(self._clock.now + latency_s, self._last_arrival.get(link, 0.0))
        self._last_arrival[link] = arrival
        self.messages += 1
        self._clock.at(arrival, lambda: self._deliver(sender, to, message, payload))

    def _deliver(self, sender: PeerId, to: PeerId, message: Message, payload: Any) -> None:
        door = self._doors.get(to)
        if door is not None:
            door(sender, message, payload)
