"""A policy of wiring of your own: the better one of two (Mitzenmacher 2001, "The power of two
choices in randomized load balancing").

    [wiring]
    policy = "examples.two_choices:TwoChoices"

Of two replicas that are drawn at random, the one gets the next microbatch at which it would be done
first, by the newest word of its queue and by what was given to it since.
"""

from __future__ import annotations

import random

from swarmrt.ids import SeatId
from swarmrt.scheduler.wiring.estimates import Estimates


class TwoChoices:
    def __init__(self, estimates: Estimates, rng: random.Random) -> None:
        self._estimates, self._rng = estimates, rng
        self._seats: list[SeatId] = []
        self._place: dict[SeatId, int] = {}
        self._since: dict[SeatId, tuple[float | None, float]] = {}  # news; seconds given since

    def add(self, seat: SeatId) -> None:
        self._place[seat] = len(self._seats)
        self._seats.append(seat)

    def remove(self, seat: SeatId) -> None:
        place, last = self._place.pop(seat), self._seats.pop()
        if last != seat:
            self._seats[place], self._place[last] = last, place
        self._since.pop(seat, None)

    def choose(self, now: float) -> SeatId | None:
        if not self._seats:
            return None
        one, other = self._rng.choice(self._seats), self._rng.choice(self._seats)
        chosen = min(one, other, key=self._done_in_s)
        done_s = self._done_in_s(chosen)
        backlog_s = self._estimates.backlog_s(chosen)
        self._since[chosen] = backlog_s, done_s - (backlog_s or 0.0)
        return chosen

    def _done_in_s(self, seat: SeatId) -> float:
        backlog_s = self._estimates.backlog_s(seat)
        news_of, given_s = self._since.get(seat, (backlog_s, 0.0))
        since_s = given_s if news_of == backlog_s else 0.0
        return (backlog_s or 0.0) + since_s + self._estimates.expected_s(seat)
