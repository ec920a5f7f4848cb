"""The answer to every single loss, before it happens (as Oobleck computes it: Jang et al. 2023).

For each peer: what is left without it, and which one move of another helps most.
"""

from __future__ import annotations

from typing import NamedTuple

from swarmrt.scheduler.placement.facts import Job, Network, Placement
from swarmrt.scheduler.placement.step_time import Timing, rates

WORTH = 1.02  # times the rate, for a move to be worth its download


class Gap(NamedTuple):
    """A gap: the peer that is lost, and the stage that it leaves."""

    lost: int
    stage: int


class Loss(NamedTuple):
    """The loss of one peer, and what to do about it."""

    peer: int
    stage: int
    share: float  # of the rate that is left, once the move is made
    move: tuple[int, int] | None  # a peer, and the stage that it is to serve


def survivable(placement: Placement) -> int:
    """Return how many replicas any stage may lose and still have one."""
    return min(map(len, placement)) - 1


def single_losses(job: Job, network: Network, placement: Placement) -> list[Loss]:
    """Return the answer to the loss of each peer that serves, the worst one first."""
    timing = Timing(job, network)
    before = min(rates(job, network, placement).values())
    found = []
    for stage, peers in enumerate(placement):
        for peer in peers:
            left = tuple(tuple(p for p in its if p != peer) for its in placement)
            move, after = _best_move(job, network, timing, left, Gap(peer, stage))
            found.append(Loss(peer, stage, after / before, move))
    return sorted(found, key=lambda loss: (loss.share, loss.peer))


def _best_move(
    job: Job, network: Network, timing: Timing, left: Placement, gap: Gap
) -> tuple[tuple[int, int] | None, float]:
    """Return the move to the stage that helps most, if one does, and the rate then."""
    lost, stage = gap
    best: tuple[tuple[int, int] | None, float, float] = (None, _rate(job, network, left), 0.0)
    idle = set(range(len(network.names))) - {lost} - {p for peers in left for p in peers}
    sources = [(p, s) for s, peers in enumerate(left) if len(peers) > 1 for p in peers]
    for peer, source in [*sources, *((p, -1) for p in sorted(idle))]:
        if source == stage or not network.fits(job, peer, stage):
            continue
        moved = tuple(
            tuple(sorted((*peers, peer))) if s == stage else tuple(p for p in peers if p != peer)
            for s, peers in enumerate(left)
        )
        rate, time_s = _rate(job, network, moved), timing.of(moved).total_s
        if rate > best[1] * WORTH or (best[0] and rate >= best[1] and time_s < best[2]):
            best = ((peer, stage), rate, time_s)
    return best[0], best[1]


def _rate(job: Job, network: Network, placement: Placement) -> float:
    return min(rates(job, network, placement).values()) if all(placement) else 0.0
