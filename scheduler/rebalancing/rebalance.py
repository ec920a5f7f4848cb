"""The decision: switches among states that are held, then downloads, then standby.

It is made anew from the facts each time that a peer joins, leaves or has loaded a state, and
remembers nothing. What is on its way is a fact too: the second half of a plan waits for a download,
and is found again when that has come. Until then, whoever takes part in it is reserved: keeps its
states, and loads no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from swarmrt.scheduler.rebalancing.assignment import Assignment, Move
from swarmrt.scheduler.rebalancing.limits import fits, may_serve
from swarmrt.scheduler.rebalancing.loaders import Loaders
from swarmrt.scheduler.rebalancing.plan import Download, Drop, Plan, Switch
from swarmrt.scheduler.rebalancing.raising import raise_poorest
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.standby import listeners, stand_by
from swarmrt.scheduler.rebalancing.swarm import Swarm


def rebalance(swarm: Swarm, settings: Settings) -> Plan:
    """Return what is to be done now. An empty plan says that all is well, or on its way."""
    if not swarm.peers:
        return Plan()
    present = _present(swarm)
    before = present.least()
    moves = [*_begun(swarm, present), *raise_poorest(present, settings)]
    switches = _switches(swarm, moves, present, before)

    projected = _projected(swarm, present)
    waiting = raise_poorest(projected, settings)
    reserved = {move.peer for move in (*moves, *waiting)}
    loaders = Loaders(swarm, projected, reserved)
    downloads = [*_welcomed(swarm, projected, loaders)]
    before = projected.least()
    chains = raise_poorest(projected, settings, loaders)
    reserved |= {move.peer for move in chains}
    downloads += _downloads(swarm, chains, projected, before)
    listening = listeners(swarm, settings)
    downloads += stand_by(swarm, settings, projected, loaders, listening)
    drops = _drops(swarm, present, downloads, reserved | set(listening))
    return Plan(tuple(drops), tuple(switches), tuple(downloads))


def choose_stage(swarm: Swarm, settings: Settings, name: str) -> tuple[int, str] | None:
    """Return the stage that a newcomer of the swarm is to serve, and why, if it may serve any."""
    plan = rebalance(swarm, settings)
    for switch in plan.switches:
        if switch.peer == name:
            return switch.to_stage, switch.why
    for download in plan.downloads:
        if download.peer == name:
            return download.stage, download.why
    return None


# ---------------------------------------------------------------------- what is, what will be


def _present(swarm: Swarm) -> Assignment:
    """Return who serves what, and could serve without a download."""
    assignment = Assignment(swarm.stages, [peer.rate for peer in swarm.peers])
    for number, peer in enumerate(swarm.peers):
        place = assignment.idle if peer.serving is None else peer.serving
        assignment.enter(number, place, [s for s in peer.holds if may_serve(peer, s)])
    return assignment


def _projected(swarm: Swarm, present: Assignment) -> Assignment:
    """Return the same after the switches, and when all that is loading has come."""
    assignment = Assignment(swarm.stages, [peer.rate for peer in swarm.peers])
    for number, peer in enumerate(swarm.peers):
        place, reach = present.place(number), present.reach(number)
        if peer.loading is not None:
            if may_serve(peer, peer.loading):
                reach = (*reach, peer.loading)
            if peer.serves_when_loaded:
                place = peer.loading
        assignment.enter(number, place, reach)
    return assignment


# ---------------------------------------------------------------------- newcomers


def _begun(swarm: Swarm, present: Assignment) -> Iterator[Move]:
    """Yield moves of those who hold a state and serve nothing: to the poorest they can serve."""
    for number, peer in enumerate(swarm.peers):
        if peer.serving is None and peer.loading is None and present.reach(number):
            stage = min(present.reach(number), key=lambda s: present.rates[s])
            present.move(number, stage)
            yield Move(number, present.idle, stage)


def _welcomed(swarm: Swarm, projected: Assignment, loaders: Loaders) -> Iterator[Download]:
    """Yield a download for each newcomer: fastest first, each for the poorest stage by then."""
    idle = [
        number
        for number in range(len(swarm.peers))
        if projected.place(number) == projected.idle and loaders.is_free(number)
    ]
    for number in sorted(idle, key=lambda n: -projected.speed(n)):
        stage = next((s for s in projected.poorest_first() if loaders.may(number, s)), None)
        if stage is None:
            continue
        why = f"a newcomer; this stage is the poorest, with {projected.rates[stage]:.4g}/s"
        projected.move(number, stage)
        loaders.take(number)
        yield Download(swarm.peers[number].name, stage, why, serves_when_loaded=True)


# ---------------------------------------------------------------------- in words


def _switches(
    swarm: Swarm, moves: Iterable[Move], present: Assignment, before: float
) -> list[Switch]:
    """Return one switch for each peer that ends elsewhere, however many moves have led there."""
    why = f"it holds the state; the swarm goes from {before:.4g}/s to {present.least():.4g}/s"
    switches = []
    for number in dict.fromkeys(move.peer for move in moves):
        peer, stage = swarm.peers[number], present.place(number)
        if stage != peer.serving:
            switches.append(Switch(peer.name, peer.serving, stage, why))
    return switches


def _downloads(
    swarm: Swarm, moves: Iterable[Move], projected: Assignment, before: float
) -> list[Download]:
    """Return the downloads of those who are to serve what they load."""
    why = f"with it the swarm goes from {before:.4g}/s to {projected.least():.4g}/s"
    return [
        Download(swarm.peers[move.peer].name, move.to_stage, why)
        for move in moves
        if move.is_download and projected.place(move.peer) == move.to_stage
    ]


def _drops(
    swarm: Swarm, present: Assignment, downloads: Iterable[Download], kept: set[int]
) -> Iterator[Drop]:
    """Yield what is forgotten: what no slot or plan keeps, and what a download has no room for."""
    loads = {download.peer: download.stage for download in downloads}
    for number, peer in enumerate(swarm.peers):
        serving = present.place(number)
        others = sorted(peer.holds - {serving})
        if not others:
            continue
        if (stage := loads.get(peer.name)) is not None:
            if not fits(peer, [*peer.holds, stage], swarm.stages):
                for other in others:
                    yield Drop(peer.name, other, f"room for stage {stage} is needed")
        elif number not in kept:
            for other in others:
                yield Drop(peer.name, other, "no slot for standby, and no plan needs it")
