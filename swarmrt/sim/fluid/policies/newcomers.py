"""Policies that only say where newcomers go: `none`, `static` and `gwtf`. Nobody ever moves."""

from __future__ import annotations

import random

from swarmrt.scheduler.rebalancing.plan import Download, Plan
from swarmrt.scheduler.rebalancing.swarm import Swarm
from swarmrt.sim.fluid.policies.policy import idle_peers, may_serve, rates_by_stage


class AtRandom:
    """The policy `none`: newcomers go to any stage."""

    period_s: float | None = None

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"{seed}/none")

    def decide(self, swarm: Swarm) -> Plan:
        return Plan(
            downloads=tuple(
                Download(
                    peer.name,
                    self._rng.randrange(len(swarm.stages)),
                    "any",
                    serves_when_loaded=True,
                )
                for peer in idle_peers(swarm)
            )
        )

    def wake(self, swarm: Swarm) -> Plan:
        return Plan()


class ToPoorest:
    """The policy `static`: newcomers go to the stage with the least rate, counting those who are
    loading."""

    period_s: float | None = None

    def __init__(self, seed: int) -> None:
        pass

    def decide(self, swarm: Swarm) -> Plan:
        return to_poorest(swarm, rates_by_stage(swarm, with_loading=True))

    def wake(self, swarm: Swarm) -> Plan:
        return Plan()


class ToLeastCapacity(ToPoorest):
    """The policy `gwtf`: newcomers go to the stage with the least capacity, in microbatches that
    its peers hold at a time, which does not depend on their speed.

    This is our reading of "Go With The Flow" (2509.21221): flows are repaired around whoever has
    left, at no cost here; where capacity is short, it comes with newcomers.
    """

    def decide(self, swarm: Swarm) -> Plan:
        counts = [0.0] * len(swarm.stages)
        for peer in swarm.peers:
            stage = peer.loading if peer.serves_when_loaded else peer.serving
            if stage is not None:
                counts[stage] += 1
        return to_poorest(swarm, counts, by_count=True)


def to_poorest(swarm: Swarm, rates: list[float], *, by_count: bool = False) -> Plan:
    """Return a plan that sends each newcomer to the stage with the least of `rates` by then."""
    downloads = []
    for peer in idle_peers(swarm):
        stage = min(may_serve(peer, len(rates)), key=lambda s: (rates[s], s))
        rates[stage] += 1 if by_count else peer.rate / swarm.stages[stage].compute
        downloads.append(Download(peer.name, stage, "the poorest", serves_when_loaded=True))
    return Plan(downloads=tuple(downloads))
