"""The facts that a decision on who serves what is made from, out of what the trainer knows.

A process whose seats are arranged is one peer. A seat of any other is a peer that stays where it
is; spares of those, and whoever wants to leave, are none.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from statistics import median_low

from swarmrt.ids import PeerId, peer_of
from swarmrt.scheduler.rebalancing.swarm import Limits, Peer, Stage, Swarm
from swarmrt.scheduler.trainer.course.course import RunPhase
from swarmrt.scheduler.trainer.membership.arranging.paces import Paces
from swarmrt.scheduler.trainer.membership.arranging.processes import Process
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run

LISTENING_SHARE = Limits().listening_share

Seats = Mapping[PeerId, list[Member]]


def seats_by_process(run: Run) -> Seats:
    """Return the members of each process, in the order of their stages."""
    found: defaultdict[PeerId, list[Member]] = defaultdict(list)
    for member in sorted(run.members, key=lambda member: member.peer):
        found[peer_of(member.peer)].append(member)
    return found


def served_by(seats: Iterable[Member]) -> dict[int, Member]:
    """Return the seats that serve and are not about to stop that, by stage."""
    ready = (member for member in seats if member.state is Membership.READY)
    return {member.stage: member for member in ready if not member.leaving}


def held_by(seats: Iterable[Member]) -> set[int]:
    """Return the stages whose state is held, current or about to be."""
    return {member.stage for member in seats if _has_state(member)}


def _has_state(member: Member) -> bool:
    if member.state is Membership.READY:
        return not member.leaving or member.yields
    follows = member.state is Membership.ADMITTED and member.agreed is not None
    return follows and not member.leaving


def swarm_of(run: Run, seats: Seats, paces: Paces, now: float) -> Swarm:
    """Return the swarm as a decision sees it: without those whose owners have paused them."""
    gradients = _gradient_bytes(run)
    peers: list[Peer] = []
    paused = {peer for peer, its in seats.items() if any(seat.is_paused for seat in its)}
    for peer, its in seats.items():
        if run.processes.get(peer) is None and peer not in paused:
            peers += _fixed(its, paces)
    for process in run.processes:
        if process.offer.stages and not process.is_away and process.peer not in paused:
            its = seats.get(process.peer, [])
            peers.append(_arranged(process, its, gradients, paces, now))
    least = run.needed if run.phase is RunPhase.WAITING else (1,) * run.num_stages
    stages = tuple(
        Stage(weight, run.settings.state_gradients * size, size, needed)
        for weight, size, needed in zip(paces.work(), gradients, least, strict=True)
    )
    return Swarm(now, stages, tuple(peers), run.pace.step_time.mean_s or math.inf)


def _gradient_bytes(run: Run) -> list[float]:
    """Return the size of each stage's gradient as it travels, by its peers' own word; 0 where
    nobody has told."""
    said: list[list[int]] = [[] for _ in range(run.num_stages)]
    for member in run.members:
        if member.beacon is not None and member.beacon.gradient_bytes:
            said[member.stage].append(member.beacon.gradient_bytes)
    return [float(median_low(sizes)) if sizes else 0.0 for sizes in said]


def _fixed(seats: list[Member], paces: Paces) -> Iterator[Peer]:
    """Yield a peer for each seat that takes part, or is about to, and stays at its stage."""
    takes_part = [seat for seat in seats if not seat.leaving and not seat.is_spare]
    for seat in takes_part:
        if seat.beacon is None:
            continue
        serves = seat.state is Membership.READY
        yield Peer(
            seat.peer,
            paces.rate(seat.peer) / len(takes_part),
            serving=seat.stage if serves else None,
            holds=frozenset({seat.stage} if serves else ()),
            loading=None if serves else seat.stage,
            serves_when_loaded=not serves,
            limits=Limits(stages=frozenset({seat.stage}), most_states=1, may_move=False),
        )


def _arranged(
    process: Process, seats: list[Member], gradients: list[float], paces: Paces, now: float
) -> Peer:
    served, holds = served_by(seats), held_by(seats)
    order, place = process.order, process.place
    loads = {*process.offer.held, *(seat.stage for seat in seats if not seat.leaving)} - holds
    if order is not None and order.takes:
        loads.add(order.stage)
    elif order is not None:
        holds.discard(order.stage)
        loads.discard(order.stage)
    loading = place if place in loads else min(loads, default=None)
    serving = place if place in holds else min(served, default=None)  # it is about to, at least
    return Peer(
        process.peer,
        paces.rate(process.peer),
        serving=serving,
        holds=frozenset(holds),
        loading=loading,
        serves_when_loaded=loading is not None and loading == place,
        limits=_limits(process, seats, serving, holds, gradients, now),
    )


def _limits(
    process: Process,
    seats: list[Member],
    serving: int | None,
    holds: set[int],
    gradients: list[float],
    now: float,
) -> Limits:
    """Return what its owner allows. Who rests, or is still at something, is asked for nothing that
    takes a further state; nor at another stage, if it is barred at one, or is to stay."""
    stays = process.is_barred or now < process.stays_until
    offer, rests = process.offer, process.rests(now) or stays
    can_load = not rests and process.order is None
    stages = offer.stages if not rests else holds
    if stays:
        stages = () if serving is None else (serving,)
    return Limits(
        stages=frozenset(stages),
        most_states=offer.rooms if can_load else max(1, len(holds)),
        downlink_bytes_per_s=offer.down_bytes_per_s or _measured(seats, gradients),
        listening_share=offer.listening_share or LISTENING_SHARE,
        may_move=not offer.pinned,
        until=now + offer.for_s if offer.for_s else math.inf,
    )


def _measured(seats: list[Member], gradients: list[float]) -> float:
    """Return the bytes that come in a second over its link, by what it says of gradients."""
    rates = [gradients[seat.stage] / seat.gradient_s for seat in seats if seat.gradient_s]
    return min((rate for rate in rates if rate > 0), default=math.inf)
