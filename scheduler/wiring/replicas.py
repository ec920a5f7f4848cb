"""The neighbouring stages' replicas, as a peer knows them: by the trainer's word alone, and by what
happened on the way to them. The directory only tells where they are."""

from __future__ import annotations

import random
from collections.abc import Iterator

from swarmrt.ids import SeatId
from swarmrt.scheduler.timing.intervals import record_life_s
from swarmrt.scheduler.timing.times import BEACON_S
from swarmrt.scheduler.wiring.limits import most_given
from swarmrt.scheduler.wiring.policy import BUILT_IN, policy_of
from swarmrt.scheduler.wiring.stochastic import Wiring


class Absent:
    """Peers that were lost a short while ago: the directory still names them until their record
    has expired."""

    def __init__(self, record_ttl_s: float) -> None:
        self._record_ttl_s = record_ttl_s
        self._until: dict[SeatId, float] = {}

    def add(self, peer: SeatId, now: float, beacon_s: float = BEACON_S) -> None:
        """Take note that it is lost. Who has beaconed less often has a record that lives longer."""
        self._until[peer] = now + record_life_s(self._record_ttl_s, beacon_s)

    def discard(self, peer: SeatId) -> None:
        """Take note that it is back."""
        self._until.pop(peer, None)

    def without(self, peers: tuple[SeatId, ...], now: float) -> tuple[SeatId, ...]:
        """Return those that are not known to be gone."""
        self._until = {peer: until for peer, until in self._until.items() if until > now}
        return tuple(peer for peer in peers if peer not in self._until)


class Replicas:
    """The replicas of the next stage. Only whom the trainer vouches for, in this epoch, is given
    work; and who is not near, by its word, only while nobody is who is."""

    def __init__(self, rng: random.Random, record_ttl_s: float, policy: str = BUILT_IN) -> None:
        self.wiring = Wiring(rng, is_only_sender=False, make_policy=policy_of(policy))
        self._absent = Absent(record_ttl_s)
        self._vouched: dict[SeatId, None] = {}
        self._near: set[SeatId] = set()  # of those that are vouched for, and not absent
        self._far: dict[SeatId, tuple[float, int]] = {}  # and what they say of themselves

    def __contains__(self, peer: SeatId) -> bool:
        """Return whether the trainer vouches for it."""
        return peer in self._vouched

    def __iter__(self) -> Iterator[SeatId]:
        return iter(self._vouched)

    def vouch(
        self,
        peer: SeatId,
        now: float,
        service_s: float = 0.0,
        holds: int = 0,
        *,
        is_near: bool = True,
    ) -> None:
        """The trainer says that it takes work, and what it says of itself. Where that is no news,
        and the link to it has just broken, it is not tried again yet."""
        if peer not in self._vouched:
            self._vouched[peer] = None
            self._absent.discard(peer)
        if not self._absent.without((peer,), now):
            return
        if is_near:
            self._far.pop(peer, None)
            self._near.add(peer)
            self.wiring.add(peer, service_s)
            self.wiring.limit(peer, most_given(holds))
        else:
            self._near.discard(peer)
            self._far[peer] = service_s, holds
        self._fit()

    def fenced(self, peer: SeatId) -> None:
        """The trainer says that nothing is to be had from it."""
        self._vouched.pop(peer, None)
        self._remove(peer)

    def lost(self, peer: SeatId, now: float) -> None:
        """The link to it is broken."""
        self._absent.add(peer, now)
        self._remove(peer)

    def clear(self) -> None:
        """Forget what the trainer has said, which is of an earlier admission."""
        for peer in self._vouched:
            self.wiring.remove(peer)
        self._vouched.clear()
        self._near.clear()
        self._far.clear()

    def _remove(self, peer: SeatId) -> None:
        self._near.discard(peer)
        self._far.pop(peer, None)
        self.wiring.remove(peer)
        self._fit()

    def _fit(self) -> None:
        """Use those that are not near while nobody is: nobody stands still for it."""
        for peer, (service_s, holds) in self._far.items():
            if self._near:
                self.wiring.remove(peer)
            else:
                self.wiring.add(peer, service_s)
                self.wiring.limit(peer, most_given(holds))

    def refused(self, peer: SeatId, service_s: float, until: float) -> None:
        """Give nothing more until then to a replica that did not take work."""
        self.wiring.estimates.observe(peer, service_s)
        self.wiring.block(peer, until)
