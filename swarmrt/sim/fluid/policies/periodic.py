"""SWARM's rebalancing (Ryabinin et al. 2023, section 3.2): one move a period, in two readings."""

from __future__ import annotations

import random

from swarmrt.scheduler.rebalancing.plan import Download, Plan
from swarmrt.scheduler.rebalancing.swarm import Swarm
from swarmrt.sim.fluid.policies.newcomers import to_poorest
from swarmrt.sim.fluid.policies.policy import rates_by_stage


class Strong:
    """The policy `swarm:T`: each T seconds the peer of the richest stage that evens out most
    loads the state of the poorest in the background, if the poorest of the two gains by it.
    Newcomers go to the poorest stage, with those who are loading.
    """

    def __init__(self, seed: int, period_s: float) -> None:
        self.period_s: float | None = period_s

    def decide(self, swarm: Swarm) -> Plan:
        return to_poorest(swarm, rates_by_stage(swarm, with_loading=True))

    def wake(self, swarm: Swarm) -> Plan:
        rates = rates_by_stage(swarm, with_loading=True)
        richest, poorest = _extremes(rates)
        best, best_level = None, rates[poorest]
        for peer in swarm.peers:
            if peer.serving != richest or peer.loading is not None:
                continue
            level = min(
                rates[richest] - peer.rate / swarm.stages[richest].compute,
                rates[poorest] + peer.rate / swarm.stages[poorest].compute,
            )
            if level > best_level:
                best, best_level = peer, level
        moves = () if best is None else (_move(best.name, poorest, stops=False),)
        return Plan(downloads=(*self.decide(swarm).downloads, *moves))


class Literal:
    """The policy `swarm-literal:T`: each T seconds any peer of the richest stage stops, and goes to
    the poorest, whenever their rates differ. Newcomers go to the poorest of what is served.
    """

    def __init__(self, seed: int, period_s: float) -> None:
        self.period_s: float | None = period_s
        self._rng = random.Random(f"{seed}/literal")

    def decide(self, swarm: Swarm) -> Plan:
        return to_poorest(swarm, rates_by_stage(swarm, with_loading=False))

    def wake(self, swarm: Swarm) -> Plan:
        rates = rates_by_stage(swarm, with_loading=False)
        richest, poorest = _extremes(rates)
        movable = [p for p in swarm.peers if p.serving == richest and p.loading is None]
        moves: tuple[Download, ...] = ()
        if movable and rates[richest] > rates[poorest]:
            moves = (_move(self._rng.choice(movable).name, poorest, stops=True),)
        return Plan(downloads=(*self.decide(swarm).downloads, *moves))


def _extremes(rates: list[float]) -> tuple[int, int]:
    stages = range(len(rates))
    return max(stages, key=lambda s: (rates[s], -s)), min(stages, key=lambda s: (rates[s], s))


def _move(name: str, stage: int, *, stops: bool) -> Download:
    return Download(
        name, stage, "from the richest stage", serves_when_loaded=True, stops_serving=stops
    )
