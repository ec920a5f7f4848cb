"""Interleaved weighted round-robin (Ryabinin et al. 2023, "SWARM parallelism", section 3.2).

Each replica has an account of expected seconds handed to it; the next microbatch goes to the lowest
account, which is charged at once. Over time every replica gets work in proportion to its rate.

Rules:
- Whoever comes, or comes again after others have overtaken it, begins anywhere within one of its
  own microbatches above the lowest account. So senders do not begin alike, a newcomer gets no burst
  of work, and neither does who was blocked for long.
- While nobody has said how long a microbatch takes, accounts count rounds. They count seconds from
  the first word on: else whoever was charged before it would wait for many rounds.
- Ties are drawn from the sender's own generator.
"""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict

from swarmrt.ids import SeatId
from swarmrt.scheduler.wiring.estimates import MOST_KEPT, UNKNOWN_S, Estimates
from swarmrt.scheduler.wiring.limits import FEW

Entry = tuple[float, float, SeatId]  # account in seconds, tie, whose it is


class Interleaved:
    def __init__(self, estimates: Estimates, rng: random.Random) -> None:
        self._estimates, self._rng = estimates, rng
        self._entries: dict[SeatId, Entry] = {}
        self._heap: list[Entry] = []  # with entries of the past, which count no more
        self._left_s: OrderedDict[SeatId, float] = OrderedDict()  # accounts of who may return
        self._lowest_s = 0.0  # the account of whoever was chosen last, before it was charged
        self._counts_rounds = True

    def add(self, seat: SeatId) -> None:
        account_s = self._left_s.pop(seat, self._lowest_s)
        if account_s <= self._lowest_s:
            account_s = self._lowest_s + self._rng.random() * self._estimates.cost_s(seat)
        self._push(seat, account_s)

    def remove(self, seat: SeatId) -> None:
        self._left_s[seat] = self._entries.pop(seat)[0]
        if len(self._left_s) > MOST_KEPT:
            self._left_s.popitem(last=False)
        if len(self._heap) > 2 * len(self._entries) + FEW:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def choose(self, now: float) -> SeatId | None:
        if self._counts_rounds and (usual_s := self._estimates.usual_s()):
            self._count_seconds(usual_s)
        heap, entries = self._heap, self._entries
        while heap:
            entry = heapq.heappop(heap)
            seat = entry[2]
            if entries.get(seat) is entry:
                if entry[0] > self._lowest_s:
                    self._lowest_s = entry[0]
                self._push(seat, entry[0] + self._estimates.cost_s(seat))
                return seat
        return None

    def _push(self, seat: SeatId, account_s: float) -> None:
        entry = self._entries[seat] = (account_s, self._rng.random(), seat)
        heapq.heappush(self._heap, entry)

    def _count_seconds(self, round_s: float) -> None:
        """Turn accounts of rounds into seconds. Their order stays."""
        scale, self._counts_rounds = round_s / UNKNOWN_S, False
        self._entries = {
            seat: (account_s * scale, tie, seat)
            for seat, (account_s, tie, _) in self._entries.items()
        }
        self._left_s = OrderedDict((seat, at * scale) for seat, at in self._left_s.items())
        self._lowest_s *= scale
        self._heap = sorted(self._entries.values())

    def validate(self) -> None:
        """Check that each seat has exactly one live entry in the heap."""
        live = [entry[2] for entry in self._heap if self._entries.get(entry[2]) is entry]
        assert sorted(live) == sorted(self._entries), (live, self._entries)
        assert all(entry[0] >= self._lowest_s for entry in self._entries.values())
