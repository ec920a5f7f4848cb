"""The replicas that a sender uses: some of them, where there are many senders too.

What a sender knows of a replica comes from what it hands to it. Of thousands it would know nothing:
its turn comes round once in minutes, and all that it is told of queues is old by then. So each
sender uses a subset of its own, drawn at random, of about LEAST replicas, or more where there are
fewer senders than replicas: each replica is used by LEAST senders then.

Rules:
- A newcomer is used with the chance that the others have (Vitter 1985, algorithm R).
- The subset is renewed slowly, one replica after the other: so all are reached, and no two senders
  share one for ever.
"""

from __future__ import annotations

import random

from swarmrt.ids import SeatId

LEAST = 32  # replicas that a sender uses, and senders that use a replica
RENEW_S = 10.0  # between two replicas that are exchanged

Change = tuple[SeatId | None, SeatId | None]  # who is used from now on, who no more


class Subset:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._used, self._others = Bag(), Bag()
        self._senders = 1
        self._renew_at: float | None = None

    def __contains__(self, seat: SeatId) -> bool:
        return seat in self._used

    def __len__(self) -> int:
        return len(self._used)

    @property
    def is_all(self) -> bool:
        return not len(self._others)

    def one_of(self, senders: int) -> list[Change]:
        """Take note of how many senders there are; return what changes."""
        self._senders = max(1, senders)
        return self._fit()

    def add(self, seat: SeatId) -> list[Change]:
        """Add a replica that is not there; return what changes."""
        used, others = len(self._used), len(self._others)
        if not others and used < self._wanted_of(used + 1):
            self._used.add(seat)
            return [(seat, None)]
        self._others.add(seat)
        if self._rng.random() < used / (used + others + 1):
            return [*self._exchange(seat), *self._fit()]
        return self._fit()

    def remove(self, seat: SeatId) -> list[Change]:
        """Remove a replica that is there; return what changes beside it."""
        (self._used if seat in self._used else self._others).remove(seat)
        return self._fit()

    def renewed(self, now: float) -> list[Change]:
        """Return what changes in the course of time."""
        if (self._renew_at is not None and now < self._renew_at) or self.is_all:
            return []  # it is asked for every microbatch
        if self._renew_at is None:
            self._renew_at = now + self._rng.random() * RENEW_S
            if now < self._renew_at:
                return []
        self._renew_at = now + RENEW_S
        return self.exchange()

    def exchange(self) -> list[Change]:
        """Exchange one replica for another one, if there is any; return what changes."""
        return self._exchange(self._others.draw(self._rng)) if len(self._others) else []

    def _exchange(self, comes: SeatId) -> list[Change]:
        goes = self._used.draw(self._rng)
        self._others.remove(comes)
        self._used.remove(goes)
        self._used.add(comes)
        self._others.add(goes)
        return [(comes, goes)]

    def _fit(self) -> list[Change]:
        """Use as many as are to be used."""
        changes: list[Change] = []
        wanted = self._wanted_of(len(self._used) + len(self._others))
        while len(self._used) < wanted and len(self._others):
            comes = self._others.draw(self._rng)
            self._others.remove(comes)
            self._used.add(comes)
            changes.append((comes, None))
        while len(self._used) > wanted:
            goes = self._used.draw(self._rng)
            self._used.remove(goes)
            self._others.add(goes)
            changes.append((None, goes))
        return changes

    def _wanted_of(self, replicas: int) -> int:
        return min(replicas, max(LEAST, -(-LEAST * replicas // self._senders)))  # rounded up


class Bag:
    """Seats of which any one can be drawn."""

    def __init__(self) -> None:
        self._seats: list[SeatId] = []
        self._place: dict[SeatId, int] = {}

    def __contains__(self, seat: SeatId) -> bool:
        return seat in self._place

    def __len__(self) -> int:
        return len(self._seats)

    def add(self, seat: SeatId) -> None:
        self._place[seat] = len(self._seats)
        self._seats.append(seat)

    def remove(self, seat: SeatId) -> None:
        place, last = self._place.pop(seat), self._seats.pop()
        if last != seat:
            self._seats[place] = last
            self._place[last] = place

    def draw(self, rng: random.Random) -> SeatId:
        return self._seats[int(rng.random() * len(self._seats))]
