"""The account of a plan: what the swarm's rate is now, what it is to be, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from swarmrt.scheduler.rebalancing.limits import download_s
from swarmrt.scheduler.rebalancing.plan import Plan
from swarmrt.scheduler.rebalancing.rebalance import rebalance
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.swarm import Peer, Swarm

MOST_TRIED = 64  # peers, whose loss is tried one by one


@dataclass(frozen=True, slots=True)
class Account:
    """Rates are microbatches a second of the poorest stage."""

    now: float
    switched: float  # once what is planned without a download is done
    loaded: float  # once all that loads, and is to load, has come, and who is to switch then has
    load_bytes: float  # that the planned downloads bring, from other peers
    load_s: float  # of the longest of them, over its peer's downlink; inf where that is unknown
    step_bytes: float  # of gradients that those who are to stand by receive in each step
    after_loss: float | None  # of any one peer, at worst, before anything new is loaded
    after_loss_planned: float | None  # the same, once the plan is done


def account(swarm: Swarm, settings: Settings, plan: Plan) -> Account:
    """Return what a plan, as `rebalance` has made it of this swarm, gains and costs."""
    switched = ordered(swarm, plan)
    loaded = landed(switched, settings)
    peers = {peer.name: peer for peer in swarm.peers}
    loads = [(peers[d.peer], swarm.stages[d.stage]) for d in plan.downloads]
    standing_by = [swarm.stages[d.stage] for d in plan.downloads if d.is_standby]
    is_small = len(swarm.peers) <= MOST_TRIED
    return Account(
        now=min(stage_rates(swarm)),
        switched=min(stage_rates(switched)),
        loaded=min(stage_rates(loaded)),
        load_bytes=sum(stage.state_bytes for _, stage in loads),
        load_s=max((_seconds(peer, download_s(peer, stage)) for peer, stage in loads), default=0.0),
        step_bytes=sum(stage.gradient_bytes for stage in standing_by),
        after_loss=_after_loss(swarm, settings) if is_small else None,
        after_loss_planned=_after_loss(loaded, settings) if is_small else None,
    )


def stage_rates(swarm: Swarm) -> list[float]:
    """Return the microbatches a second that each stage computes."""
    rates = [0.0] * len(swarm.stages)
    for peer in swarm.peers:
        if peer.serving is not None:
            rates[peer.serving] += peer.rate / swarm.stages[peer.serving].compute
    return rates


def ordered(swarm: Swarm, plan: Plan) -> Swarm:
    """Return the swarm when all of a plan is told: who switches has, who loads has begun."""
    serves = {switch.peer: switch.to_stage for switch in plan.switches}
    drops = {(drop.peer, drop.stage) for drop in plan.drops}
    loads = {download.peer: download for download in plan.downloads}

    def told(peer: Peer) -> Peer:
        holds = frozenset(stage for stage in peer.holds if (peer.name, stage) not in drops)
        peer = replace(peer, serving=serves.get(peer.name, peer.serving), holds=holds)
        download = loads.get(peer.name)
        if download is None:
            return peer
        is_served = download.serves_when_loaded
        return replace(peer, loading=download.stage, serves_when_loaded=is_served)

    return replace(swarm, peers=tuple(map(told, swarm.peers)))


def landed(swarm: Swarm, settings: Settings) -> Swarm:
    """Return the swarm when all that loads has come, and who switches then has."""

    def has_loaded(peer: Peer) -> Peer:
        if peer.loading is None:
            return peer
        serving = peer.loading if peer.serves_when_loaded else peer.serving
        holds = peer.holds | {peer.loading}
        return replace(peer, serving=serving, holds=holds, loading=None, serves_when_loaded=False)

    return _switched(replace(swarm, peers=tuple(map(has_loaded, swarm.peers))), settings)


def _switched(swarm: Swarm, settings: Settings) -> Swarm:
    """Return the swarm once the switches that pay are made, and nothing else."""
    return ordered(swarm, Plan(switches=rebalance(swarm, settings).switches))


def _after_loss(swarm: Swarm, settings: Settings) -> float:
    """Return the least rate that is left when one peer is lost, and others switch at once."""
    left: Sequence[float] = [
        min(stage_rates(_switched(replace(swarm, peers=(*before, *after)), settings)))
        for number in range(len(swarm.peers))
        for before, after in [(swarm.peers[:number], swarm.peers[number + 1 :])]
    ]
    return min(left, default=0.0)


def _seconds(peer: Peer, seconds: float) -> float:
    """Return how long a download takes; inf where nobody knows how much comes over that link."""
    return math.inf if math.isinf(peer.limits.downlink_bytes_per_s) else seconds
