"""The facts of a decision on who serves what, as they travel: one map in msgpack."""

from __future__ import annotations

import math

import msgspec

from swarmrt.errors import RunError
from swarmrt.scheduler.rebalancing.swarm import Peer, Swarm

MAX_NAME = 128  # characters


def facts_in_bytes(swarm: Swarm) -> bytes:
    """Return the facts as `read_facts` reads them."""
    return msgspec.msgpack.encode(swarm)


def read_facts(data: bytes, num_stages: int) -> Swarm:
    """Read the facts of a run that has so many stages. Raises RunError for what no trainer says."""
    try:
        swarm = msgspec.msgpack.decode(data, type=Swarm)
    except msgspec.DecodeError as error:
        raise RunError(f"the facts that the trainer tells cannot be read: {error}") from None
    stages = range(num_stages)
    plausible = len(swarm.stages) == num_stages and swarm.step_s > 0 and math.isfinite(swarm.now)
    for stage in swarm.stages:
        sizes = (stage.state_bytes, stage.gradient_bytes, stage.least_replicas)
        plausible &= 0 < stage.compute < math.inf and all(0 <= size < math.inf for size in sizes)
    plausible &= all(_is_plausible(peer, stages) for peer in swarm.peers)
    if not plausible or len({peer.name for peer in swarm.peers}) < len(swarm.peers):
        raise RunError("the facts that the trainer tells cannot be true")
    return swarm


def _is_plausible(peer: Peer, stages: range) -> bool:
    limits = peer.limits
    named = {*peer.holds, *(limits.stages or ())}
    named |= {stage for stage in (peer.serving, peer.loading) if stage is not None}
    return (
        0 < len(peer.name) <= MAX_NAME
        and 0 < peer.rate < math.inf
        and all(stage in stages for stage in named)
        and limits.downlink_bytes_per_s > 0
        and limits.memory_bytes >= 0
        and 0 <= limits.listening_share <= 1
        and not math.isnan(limits.until)
    )
