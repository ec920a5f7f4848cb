"""The islands of a run: parts of it that hardly need each other, as routes stay in one.

They are for replicas that make steps of their own, and are averaged. Activations and their
gradients pass within an island; what its replicas have moved is averaged with the others' as ever.

Rules:
- There are as many islands as were asked for; fewer, where a stage has fewer replicas.
- Who asks for an island gets it, as long as each has one replica of the stage.
- Apart from that each stage's replicas are spread evenly. Where that does not come out even, the
  same islands have one more of each stage.
- Who has been there for longest stays where it is. Who comes goes where its stage has the fewest,
  and to the other seats of its process if it can.
- When an island has to end, because a stage has too few, its replicas work in the others at once.
  It is theirs still: when there are enough again, they are back.
- Who is late, or about to leave, is not counted while its stage has others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from swarmrt.ids import NO_ISLAND, PeerId, SeatId, peer_of
from swarmrt.scheduler.instructions import Instruction, ReportIslands
from swarmrt.scheduler.trainer.membership.joining.introducing import is_near, vouch
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run


class Replica(NamedTuple):
    seat: SeatId
    island: int  # that is its own, or NO_ISLAND
    asks: bool = False  # for it


Stage = Sequence[Replica]
"""The replicas of a stage, who has been there for longest first."""


def spread(most: int, stages: Sequence[Stage]) -> dict[SeatId, int]:
    """Return the island that each replica works in from now on, of at most so many."""
    number = max(1, min(most, *map(len, stages)))
    kept = _kept(number, most, stages)
    found: dict[SeatId, int] = {}
    processes: dict[PeerId, int] = {}  # where the seat of each is that was spread first
    for stage in stages:
        found |= _spread_stage(kept, stage, processes)
        for replica in stage:
            processes.setdefault(peer_of(replica.seat), found[replica.seat])
    return found


def _kept(number: int, most: int, stages: Sequence[Stage]) -> list[int]:
    """Return the islands that go on: those that have most, of as many stages as can be."""
    served = Counter(island for stage in stages for island in {one.island for one in stage})
    replicas = Counter(one.island for stage in stages for one in stage)
    by_worth = sorted(range(most), key=lambda one: (-served[one], -replicas[one], one))
    return sorted(by_worth[:number])


def _spread_stage(
    kept: Sequence[int], stage: Stage, processes: Mapping[PeerId, int]
) -> dict[SeatId, int]:
    """Return where the replicas of a stage are: first those that ask for an island, then as many as
    can be where others of their process are; and of the others those stay that can."""
    found = _granted(kept, stage)
    room = _room(kept, stage, found)

    def place(seat: SeatId, island: int) -> None:
        if seat not in found and room.get(island):
            room[island] -= 1
            found[seat] = island

    for one in stage:
        place(one.seat, processes.get(peer_of(one.seat), NO_ISLAND))
    for one in stage:
        place(one.seat, one.island)
    for one in stage:
        place(one.seat, max(kept, key=lambda island: (room[island], -island)))
    return found


def _granted(kept: Sequence[int], stage: Stage) -> dict[SeatId, int]:
    """Return who gets the island that it asks for: as long as enough are left for the others to
    have one each."""
    found: dict[SeatId, int] = {}
    lacking = set(kept)
    for one in stage:
        left = len(stage) - len(found) - 1
        if one.asks and one.island in kept and len(lacking - {one.island}) <= left:
            found[one.seat] = one.island
            lacking.discard(one.island)
    return found


def _room(kept: Sequence[int], stage: Stage, found: Mapping[SeatId, int]) -> dict[int, int]:
    """Return how many more each island gets, for all to have as even a share as can be."""
    has = Counter(found.values())
    room = dict.fromkeys(kept, 0)
    for _ in range(len(stage) - len(found)):
        room[min(kept, key=lambda island: (has[island] + room[island], island))] += 1
    return room


class Islands:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._spread: list[tuple[SeatId, int, bool]] = []  # those that were there then

    def settle(self) -> list[Instruction]:
        """Spread the replicas anew, if others are there than before; tell whom it concerns."""
        run = self._run
        most = run.settings.islands
        if most == 1:
            return []
        ready = run.members.in_state(Membership.READY)
        there = [(m.peer, m.term, _is_going(m)) for m in ready]
        if there == self._spread:
            return []
        self._spread = there
        counted = [self._counted_of(stage) for stage in range(run.num_stages)]
        members = {member.peer: member for stage in counted for member in stage}
        before = {peer: member.island for peer, member in members.items()}
        after = spread(most, [list(map(_replica, stage)) for stage in counted])
        kept = set(after.values())
        for peer, member in members.items():
            member.island = after[peer]
            if member.home not in kept and member.home != NO_ISLAND:
                continue  # it is back there when there are enough again
            member.home = member.island
        moved = [member for peer, member in members.items() if before[peer] != member.island]
        if not moved:
            return []
        for member in moved:
            run.dispatch.wiring.move(member.peer, member.island)
        told = tuple((member.peer, member.island) for member in moved)
        report = ReportIslands(len(kept), told)
        return [report, *self._told(moved, before)]

    def _counted_of(self, stage: int) -> list[Member]:
        """Return the replicas that are spread, who has been there for longest first."""
        ready = self._run.members.of_stage(stage, Membership.READY)
        fit = [member for member in ready if not _is_going(member)]
        return sorted(fit or ready, key=lambda member: (member.ready_at, member.peer))

    def _told(self, moved: list[Member], before: dict[SeatId, int]) -> list[Instruction]:
        """Tell those that give work whom they give it to from now on."""
        run, told = self._run, list[Instruction]()
        names = {member.peer for member in moved}
        for member in moved:
            givers = run.members.of_stage(member.stage - 1, Membership.READY)
            takers = run.members.of_stage(member.stage + 1, Membership.READY)
            pairs = [(giver, member) for giver in givers]
            pairs += [(member, taker) for taker in takers if taker.peer not in names]
            for giver, taker in pairs:
                was = [before.get(one.peer, one.island) for one in (giver, taker)]
                was_near = was[0] == was[1]
                if is_near(giver, taker) != was_near and not taker.draining:
                    told.append(vouch(run, taker, giver))
        return told


def _is_going(member: Member) -> bool:
    """Return whether others should rather not depend on it: it is late, or about to leave."""
    return member.leaving or member.draining or member.suspect


def _replica(member: Member) -> Replica:
    """Return a replica as it is spread: what it asks for counts more than where it has been."""
    if member.wished != NO_ISLAND:
        return Replica(member.peer, member.wished, asks=True)
    return Replica(member.peer, member.home)
