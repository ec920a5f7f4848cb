"""The things that an owner's limits allow a peer to hold, to load and to listen to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swarmrt.scheduler.rebalancing.swarm import Peer, Stage, Swarm


def may_serve(peer: Peer, stage: int) -> bool:
    """Return whether its owner lets a peer go from what it serves to a stage."""
    allowed = peer.limits.stages
    return (allowed is None or stage in allowed) and (
        peer.limits.may_move or peer.serving in (None, stage)
    )


def download_s(peer: Peer, stage: Stage) -> float:
    """Return how long a peer loads a stage's state."""
    return stage.state_bytes / peer.limits.downlink_bytes_per_s


def fits(peer: Peer, states: Iterable[int], stages: Sequence[Stage]) -> bool:
    """Return whether a peer has room for these states at one time."""
    held = set(states)
    size = sum(stages[s].state_bytes for s in held)
    return len(held) <= peer.limits.most_states and size <= peer.limits.memory_bytes


def may_load(swarm: Swarm, peer: Peer, stage: int, kept: Iterable[int]) -> bool:
    """Return whether a peer may load a state beside those it keeps, before its owner wants it
    back."""
    return (
        peer.loading is None
        and stage not in peer.holds
        and may_serve(peer, stage)
        and fits(peer, [*kept, stage], swarm.stages)
        and swarm.now + download_s(peer, swarm.stages[stage]) < peer.limits.until
    )


def can_listen(swarm: Swarm, peer: Peer, stage: int) -> bool:
    """Return whether steps are long enough for a peer to receive a stage's gradient in each."""
    listening_s = swarm.stages[stage].gradient_bytes / peer.limits.downlink_bytes_per_s
    return listening_s <= peer.limits.listening_share * swarm.step_s
