"""Petals' choice of blocks (Borzunov et al. 2023): `petals:0.75`."""

from __future__ import annotations

import random

from swarmrt.scheduler.rebalancing.plan import Download, Plan
from swarmrt.scheduler.rebalancing.swarm import Peer, Swarm
from swarmrt.sim.fluid.policies.newcomers import to_poorest
from swarmrt.sim.fluid.policies.policy import rates_by_stage

CHECK_S = 120.0  # Petals' mean time between two checks of a server
MOST_ROUNDS = 10  # of everybody moving in thought


class Petals:
    """Each server asks for itself, now and then: if I moved, and everybody else then moved as
    they would like, how much better would the poorest stage be? If what there is falls below
    `quality` of that, it stops, and loads the poorest stage's state; but not where that leaves
    its own stage without anybody.
    """

    def __init__(self, seed: int, quality: float) -> None:
        self.period_s: float | None = 10.0
        self._quality = quality
        self._rng = random.Random(f"{seed}/petals")
        self._next_check: dict[str, float] = {}

    def decide(self, swarm: Swarm) -> Plan:
        return to_poorest(swarm, rates_by_stage(swarm, with_loading=True))

    def wake(self, swarm: Swarm) -> Plan:
        moves = []
        for peer in swarm.peers:
            at = self._next_check.setdefault(peer.name, swarm.now + self._pause())
            if at > swarm.now:
                continue
            self._next_check[peer.name] = swarm.now + self._pause()
            stage = self._better(swarm, peer)
            if stage is not None:
                why = f"below {self._quality} of what it could be"
                moves.append(
                    Download(peer.name, stage, why, serves_when_loaded=True, stops_serving=True)
                )
        return Plan(downloads=(*self.decide(swarm).downloads, *moves))

    def _pause(self) -> float:
        return self._rng.uniform(0, 2 * CHECK_S)

    def _better(self, swarm: Swarm, peer: Peer) -> int | None:
        if peer.serving is None or peer.loading is not None:
            return None
        rates = rates_by_stage(swarm, with_loading=True)
        before = min(rates)
        places = {p: p.loading if p.serves_when_loaded else p.serving for p in (peer, *swarm.peers)}
        others = [p for p in swarm.peers if p != peer and places[p] == peer.serving]
        own = _moved(swarm, rates, places, peer) if others else None
        if own is None:
            return None
        for _ in range(MOST_ROUNDS):
            others = [p for p in swarm.peers if places[p] is not None]
            self._rng.shuffle(others)
            if not [p for p in others if _moved(swarm, rates, places, p) is not None]:
                break
        after = min(rates)
        return own if after > 0 and before / after < self._quality else None


def _moved(
    swarm: Swarm, rates: list[float], places: dict[Peer, int | None], peer: Peer
) -> int | None:
    """Move a peer in thought to the poorest stage, and return it; None if that is where it is."""
    here = places[peer]
    assert here is not None, "it serves a stage"
    rates[here] -= peer.rate / swarm.stages[here].compute
    stage = min(range(len(rates)), key=lambda s: (rates[s], s != here, s))
    rates[stage] += peer.rate / swarm.stages[stage].compute
    places[peer] = stage
    return None if stage == here else stage
