"""The entrances of the pipeline: which replica of stage 0 gets the next microbatch.

Where routes stay in islands, that decides which island does it, with all of its stages. How fast
one is shows in how many it has under way: the next one goes where there are the fewest. So each is
kept as full as the others, and whoever gets done sooner gets more. Within an island it is wiring.
"""

from __future__ import annotations

import random
from collections import Counter

from swarmrt.ids import MicrobatchId, SeatId
from swarmrt.scheduler.wiring.estimates import Estimates
from swarmrt.scheduler.wiring.policy import BUILT_IN, policy_of
from swarmrt.scheduler.wiring.stochastic import Wiring


class Entrances:
    def __init__(self, seed: int, policy: str = BUILT_IN) -> None:
        self.estimates = Estimates()
        self._seed, self._make_policy = seed, policy_of(policy)
        self._wirings = {0: self._wiring(random.Random(seed))}  # by island
        self._island_of: dict[SeatId, int] = {}
        self._given: dict[MicrobatchId, int] = {}  # and to which island
        self._under_way: Counter[int] = Counter()  # by island

    def _wiring(self, rng: random.Random) -> Wiring:
        return Wiring(rng, make_policy=self._make_policy, estimates=self.estimates)

    def __len__(self) -> int:
        return len(self._island_of)

    def add(self, seat: SeatId, service_s: float = 0.0, island: int = 0) -> None:
        """A replica of stage 0 takes work, perhaps again, as `Wiring.add` has it."""
        if self._island_of.get(seat, island) != island:
            self.remove(seat)
        if island not in self._wirings:
            self._wirings[island] = self._wiring(random.Random(f"{self._seed} {island}"))
        self._island_of[seat] = island
        self._wirings[island].add(seat, service_s)

    def limit(self, seat: SeatId, capacity: int) -> None:
        """The replica can hold so many microbatches, as `Wiring.limit` has it."""
        island = self._island_of.get(seat)
        if island is not None:
            self._wirings[island].limit(seat, capacity)

    def remove(self, seat: SeatId) -> None:
        island = self._island_of.pop(seat, None)
        if island is not None:
            self._wirings[island].remove(seat)

    def move(self, seat: SeatId, island: int) -> None:
        """A replica works in another island from now on, if it takes work at all."""
        if seat in self._island_of:
            self.add(seat, island=island)

    def choose(self, now: float, microbatch: MicrobatchId) -> SeatId | None:
        """Return the replica for one more microbatch; None if none can take work."""
        self.over(microbatch)
        islands = sorted(self._wirings, key=lambda one: (self._under_way[one], one))
        for island in islands:
            chosen = self._wirings[island].choose(now, microbatch)
            if chosen is not None:
                self._given[microbatch] = island
                self._under_way[island] += 1
                return chosen
        return None

    def over(self, microbatch: MicrobatchId) -> None:
        """A microbatch is under way no more."""
        island = self._given.pop(microbatch, None)
        if island is not None:
            self._under_way[island] -= 1
            self._wirings[island].over(microbatch)

    def clear(self) -> None:
        """Nothing is under way any more."""
        self._given.clear()
        self._under_way.clear()
        for wiring in self._wirings.values():
            wiring.clear()

    def block(self, seat: SeatId, until: float) -> None:
        """The replica refused work or could not be reached: nothing more for it until then."""
        island = self._island_of.get(seat)
        if island is not None:
            self._wirings[island].block(seat, until)

    def validate(self) -> None:
        for island, wiring in self._wirings.items():
            wiring.validate()
            assert all(self._island_of[seat] == island for seat in wiring.peers)
        assert sum(len(wiring) for wiring in self._wirings.values()) == len(self._island_of)
        assert Counter(self._given.values()) == +self._under_way
