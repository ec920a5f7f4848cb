"""The questions to a policy, and what others' policies share: facts and plans of a swarm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from swarmrt.scheduler.rebalancing.plan import Plan
from swarmrt.scheduler.rebalancing.swarm import Peer, Swarm


class Policy(Protocol):
    """A policy, which decides. A user's own is a class of this shape, made with the seed alone."""

    period_s: float | None  # between calls of `wake`; None: it is never called

    def decide(self, swarm: Swarm) -> Plan:
        """Return what to do when somebody has come, gone, or loaded a state."""
        ...

    def wake(self, swarm: Swarm) -> Plan:
        """Return what to do when a period is over."""
        ...


def idle_peers(swarm: Swarm) -> list[Peer]:
    """Return newcomers that neither serve nor load anything."""
    return [peer for peer in swarm.peers if peer.serving is None and peer.loading is None]


def may_serve(peer: Peer, stages: int) -> Sequence[int]:
    """Return the stages, of so many, that a peer's owner lets it serve."""
    return range(stages) if peer.limits.stages is None else sorted(peer.limits.stages)


def rates_by_stage(swarm: Swarm, *, with_loading: bool) -> list[float]:
    """Return what stages are served with, also by those who are still loading their state."""
    rates = [0.0] * len(swarm.stages)
    for peer in swarm.peers:
        stage = peer.serving
        if with_loading and peer.serves_when_loaded:
            stage = peer.loading
        if stage is not None:
            rates[stage] += peer.rate / swarm.stages[stage].compute
    return rates
