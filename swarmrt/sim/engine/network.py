"""Links of the simulated world, between processes, which their seats share: each with a latency of
its own, and as bad as asked for.

A message may be lost without a trace, come twice, or come late. A cut between two processes loses
what is on its way, and both ends see their link break. With wires, bytes take their time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from swarmrt.ids import PeerId, peer_of
from swarmrt.messages import Beacon, Message
from swarmrt.scheduler.events import Event, PeerLost, Received, SendFailed
from swarmrt.sim.engine.clock import Clock
from swarmrt.sim.engine.links import CONTROL_BYTES, Bulk, Wires

WITHIN_S = 0.0001  # from one seat of a process to another

Deliver = Callable[[Event, Any], None]


@dataclass(frozen=True)
class Weather:
    """The badness of links: chances of one message."""

    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0  # and so overtaken by others
    late_s: float = 1.0
    datagrams_lost: float = 0.0  # beacons
    datagrams_late: float = 0.0


class Network:
    def __init__(
        self, clock: Clock, rng: random.Random, weather: Weather, wires: Wires | None = None
    ) -> None:
        self.weather, self.wires = weather, wires
        self.copies: Callable[[Message], int] = lambda _: 1  # that arrive, in fair weather
        self._clock, self._rng = clock, rng
        self._doors: dict[PeerId, Deliver] = {}
        self._latency_s: dict[tuple[PeerId, PeerId], float] = {}
        self._last_arrival: dict[tuple[PeerId, PeerId], float] = {}
        self._cut_until: dict[frozenset[PeerId], float] = {}
        self._stalled_until: dict[PeerId, float] = {}
        self._generation: dict[frozenset[PeerId], int] = {}  # counts the breaks of a link

    def connect(self, peer: PeerId, deliver: Deliver) -> None:
        """Call `deliver(event, payload)` for whatever reaches this seat, or the trainer."""
        self._doors[peer] = deliver

    def disconnect(self, peer: PeerId) -> None:
        """End a process's links: what it has sent still arrives before."""
        for name in self._doors_of(peer):
            del self._doors[name]
        self._drop(self.wires.pairs_of(peer) if self.wires is not None else [])
        for other in list(self._doors):
            seen_at = max(self._clock.now, self._last_arrival.get((peer, peer_of(other)), 0.0))
            seen_at += self._rng.uniform(0, 0.5)
            self._tell(other, PeerLost(peer, "killed"), seen_at - self._clock.now)

    def close_door(self, seat: PeerId) -> None:
        """Let nothing reach a seat any more whose process goes on."""
        self._doors.pop(seat, None)

    def _doors_of(self, peer: PeerId) -> list[PeerId]:
        """Return all names under which a process is reached."""
        return [name for name in self._doors if peer_of(name) == peer]

    def cut(self, one: PeerId, other: PeerId, seconds: float) -> None:
        """Let nothing pass between the processes of these two meanwhile."""
        one, other = peer_of(one), peer_of(other)
        if one == other:
            return
        self._cut_until[frozenset((one, other))] = self._clock.now + seconds
        self._break(one, other)
        for end, lost in ((one, other), (other, one)):
            self._tell_all(end, PeerLost(lost, "cut"), self._rng.uniform(0, 0.5))

    def stall(self, host: PeerId, seconds: float) -> None:
        """Take its radio away: what comes from it and for it waits, datagrams are lost."""
        host, until = peer_of(host), self._clock.now + seconds
        self._stalled_until[host] = max(until, self._stalled_until.get(host, 0.0))
        if self.wires is not None:
            self.wires.hold(host)
            self._clock.after(seconds, partial(self.wires.let_go, host))

    def is_stalled(self, host: PeerId) -> bool:
        return self._stalled_until.get(peer_of(host), 0.0) > self._clock.now

    def is_cut(self, one: PeerId, other: PeerId) -> bool:
        pair = frozenset((peer_of(one), peer_of(other)))
        return self._cut_until.get(pair, 0.0) > self._clock.now

    def is_cut_off(self, host: PeerId) -> bool:
        """Return whether anybody is cut off from it."""
        host, now = peer_of(host), self._clock.now
        return any(host in pair and until > now for pair, until in self._cut_until.items())

    def break_for(self, one: PeerId, other: PeerId) -> None:
        """Break the link of their processes so that only one of them notices."""
        one, other = peer_of(one), peer_of(other)
        if one == other:
            return
        self._break(one, other)
        self._tell_all(one, PeerLost(other, "broken"), self._rng.uniform(0, 0.1))

    def _break(self, one: PeerId, other: PeerId) -> None:
        """Lose what is on its way between them."""
        pair = frozenset((one, other))
        self._generation[pair] = self._generation.get(pair, 0) + 1
        self._drop([(one, other), (other, one)])

    def _drop(self, pairs: list[tuple[PeerId, PeerId]]) -> None:
        """Tell whoever sends bulk there that it did not go out."""
        if self.wires is None:
            return
        for sender, to in pairs:
            for bulk in self.wires.drop((sender, to)):
                self._tell(bulk.of, SendFailed(bulk.to, bulk.message), self._rng.uniform(0, 0.1))

    def send(
        self, sender: PeerId, to: PeerId, message: Message, payload: Any, size_bytes: int = 0
    ) -> None:
        link = (peer_of(sender), peer_of(to))
        pair = frozenset(link)
        if len(pair) == 1:
            self._clock.after(
                WITHIN_S, lambda: self._deliver(to, Received(sender, message), payload)
            )
            return
        latency_s = self._latency(link)
        if to not in self._doors or (self._cut_until and self.is_cut(sender, to)):
            self._tell(sender, SendFailed(to, message), latency_s)
            return
        draw = self._rng.random() - self.weather.lost
        if draw < 0 or (isinstance(message, Beacon) and self._is_lost_datagram(link)):
            return
        generation = self._generation.get(pair, 0)

        def arrive() -> None:
            stalled_s = self._stalled_s(link)
            if stalled_s > 0:
                self._clock.after(stalled_s, arrive)
            elif self._generation.get(pair, 0) == generation:
                self._deliver(to, Received(sender, message), payload)

        if self.wires is not None and size_bytes > CONTROL_BYTES:
            if self.copies(message):
                through_s = self.wires.latency_s(*link)
                through = partial(self._clock.after, through_s, arrive)
                self.wires.push(link, Bulk(message, size_bytes, through, sender, to))
            return
        arrival = self._clock.now + latency_s
        if draw < self.weather.late or self._is_late_datagram(message):
            arrival += self._rng.uniform(0, self.weather.late_s)
        else:
            arrival = max(arrival, self._last_arrival.get(link, 0.0))
            self._last_arrival[link] = arrival
        copies = self.copies(message) + (self._rng.random() < self.weather.doubled)
        for copy in range(copies):
            at = arrival + copy * self._rng.uniform(0, 0.5)
            self._clock.at(at, arrive)

    def _stalled_s(self, link: tuple[PeerId, PeerId]) -> float:
        if not self._stalled_until:
            return 0.0
        return max(self._stalled_until.get(host, 0.0) for host in link) - self._clock.now

    def _is_lost_datagram(self, link: tuple[PeerId, PeerId]) -> bool:
        chance = self.weather.datagrams_lost
        return self._stalled_s(link) > 0 or (chance > 0 and self._rng.random() < chance)

    def _is_late_datagram(self, message: Message) -> bool:
        chance = self.weather.datagrams_late
        return chance > 0 and isinstance(message, Beacon) and self._rng.random() < chance

    def _latency(self, link: tuple[PeerId, PeerId]) -> float:
        """Return the latency of this message on this link, and of the bulk that it has to wait for,
        in seconds."""
        if self.wires is not None:
            wait_s = self.wires.control_waits_s(link) + self.wires.latency_s(*link)
            return wait_s * self._rng.uniform(1.0, 1.1)
        if link not in self._latency_s:
            self._latency_s[link] = self._rng.uniform(0.001, 0.05)
        return self._latency_s[link] + self._rng.uniform(0, 0.02)

    def _tell_all(self, peer: PeerId, event: Event, after_s: float) -> None:
        """Tell all that a process holds."""
        for name in self._doors_of(peer):
            self._tell(name, event, after_s)

    def _tell(self, peer: PeerId, event: Event, after_s: float) -> None:
        self._clock.after(after_s, lambda: self._deliver(peer, event, None))

    def _deliver(self, to: PeerId, event: Event, payload: Any) -> None:
        door = self._doors.get(to)
        if door is not None:
            door(event, payload)
