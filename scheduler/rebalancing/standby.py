"""Standby: who is to keep which second state current, so that a loss is a switch away.

If each peer holds two states, who serves what is an orientation of a graph whose edges are peers:
nearly always there is an even one, as in cuckoo hashing (Pagh and Rodler 2004). Peers of the
richest stage get slots first. They stand by for a stage whose state only one peer has, else for
the one that has the least rate with those who already do, and of several for the one that their
own stage is least paired with. Nobody stands by where a step is too short to receive a gradient in
it. When all slots are full and a state has become rare, somebody changes to it from a stage that
more peers can serve.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from swarmrt.scheduler.rebalancing.assignment import Assignment
from swarmrt.scheduler.rebalancing.limits import can_listen
from swarmrt.scheduler.rebalancing.loaders import Loaders
from swarmrt.scheduler.rebalancing.plan import Download
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.swarm import Swarm

FEW = 2  # copies of a state


def listeners(swarm: Swarm, settings: Settings) -> dict[int, int]:
    """Return who goes on standing by, and for which stage: as many as there are slots."""
    slots = int(settings.standby_share * len(swarm.peers))
    found: dict[int, int] = {}
    for number, peer in enumerate(swarm.peers):
        second = _second_state(peer.holds - {peer.serving}, peer.loading, peer.serving)
        if second is not None and len(found) < slots and can_listen(swarm, peer, second):
            found[number] = second
    return found


def _second_state(held: Iterable[int], loading: int | None, serving: int | None) -> int | None:
    if loading is not None and serving is not None:
        return loading
    return min(held, default=None)


def stand_by(
    swarm: Swarm,
    settings: Settings,
    projected: Assignment,
    loaders: Loaders,
    listening: dict[int, int],
) -> Iterator[Download]:
    """Yield the downloads that fill the free slots. Everybody loads one state at a time, and of
    a state no more are loaded than there are peers to load it from."""
    free = int(settings.standby_share * len(swarm.peers)) - len(listening)
    slots = _Slots(swarm, projected, loaders)
    for number in slots.richest_first(listening) if free > 0 else ():
        if free <= 0:
            break
        stage = slots.target(number)
        if stage is None:
            continue
        own = projected.place(number)
        why = (
            f"standby; serving and covered it has {slots.covered[stage]:.4g}/s, the least, and "
            f"{slots.pairs[_pair(own, stage)]} pairs with stage {own}"
        )
        slots.fill(number, stage)
        free -= 1
        yield Download(swarm.peers[number].name, stage, why, is_standby=True)
    for stage in slots.rare():
        spare = slots.spare_listener(stage, listening)
        if spare is not None:
            slots.fill(spare, stage, listening[spare])
            why = f"standby; few have this state, and more have that of stage {listening[spare]}"
            yield Download(swarm.peers[spare].name, stage, why, is_standby=True)


def _pair(one: int, other: int) -> tuple[int, int]:
    return min(one, other), max(one, other)


class _Slots:
    """Rates that are served or covered, pairs of stages, and sources, while slots are filled."""

    def __init__(self, swarm: Swarm, projected: Assignment, loaders: Loaders) -> None:
        self._swarm = swarm
        self._projected = projected
        self._loaders = loaders
        self.covered = list(projected.rates)
        self.pairs: Counter[tuple[int, int]] = Counter()
        self._copies = list(projected.counts)  # of each state, when all has come
        self._sources = [0] * len(swarm.stages)  # holders, less those who load from them
        for number, peer in enumerate(swarm.peers):
            own = projected.place(number)
            for stage in projected.reach(number):
                if stage != own:
                    self._cover(number, own, stage)
            for stage in peer.holds:
                self._sources[stage] += 1
            if peer.loading is not None:
                self._sources[peer.loading] -= 1

    def _cover(self, number: int, own: int, stage: int) -> None:
        self._copies[stage] += 1
        self.covered[stage] += self._projected.rate_at(number, stage)
        self.pairs[_pair(own, stage)] += 1

    def richest_first(self, listening: dict[int, int]) -> list[int]:
        """Return who may get a slot: who serves, loads nothing and holds nothing else."""
        projected = self._projected
        numbers = [
            number
            for number, peer in enumerate(self._swarm.peers)
            if peer.serving is not None
            and number not in listening
            and len(projected.reach(number)) == 1
            and self._loaders.is_free(number)
        ]
        return sorted(numbers, key=lambda n: -projected.rates[projected.place(n)])

    def target(self, number: int) -> int | None:
        """Return the stage that a peer is to stand by for, if there is one."""
        own = self._projected.place(number)
        peer = self._swarm.peers[number]
        return min(
            (
                stage
                for stage in range(len(self._swarm.stages))
                if stage != own
                and self._sources[stage] > 0
                and self._loaders.may(number, stage)
                and can_listen(self._swarm, peer, stage)
            ),
            key=lambda stage: (
                self._copies[stage] > 1,
                self.covered[stage],
                self.pairs[_pair(own, stage)],
                stage,
            ),
            default=None,
        )

    def rare(self) -> list[int]:
        """Return stages whose state few peers have or are about to have, the rarest first."""
        found = [s for s, n in enumerate(self._copies) if n <= FEW and self._sources[s] > 0]
        return sorted(found, key=lambda s: self._copies[s])

    def spare_listener(self, stage: int, listening: dict[int, int]) -> int | None:
        """Return who stands by for the stage that most others have, and may change to this one."""
        numbers = (
            number
            for number, second in listening.items()
            if self._copies[second] >= self._copies[stage] + 2
            and self._loaders.is_free(number)
            and self._loaders.may(number, stage)
            and can_listen(self._swarm, self._swarm.peers[number], stage)
        )
        return max(numbers, key=lambda n: (self._copies[listening[n]], -n), default=None)

    def fill(self, number: int, stage: int, instead_of: int | None = None) -> None:
        """Let a peer load a stage's state, in place of another that it stands by for."""
        self._cover(number, self._projected.place(number), stage)
        if instead_of is not None:
            self._copies[instead_of] -= 1
            self.covered[instead_of] -= self._projected.rate_at(number, instead_of)
        self._sources[stage] -= 1
        self._loaders.take(number)
