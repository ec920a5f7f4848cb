"""The islands of a run: parts of it that hardly need each other, as routes stay in one.

They are for replicas that make steps of their own, and are averaged. Activations and their
gradients pass within an island; what its replicas have moved is averaged with the others' as ever.

Rules:
- There are as many islands as were asked for; fewer, where a stage has fewer replicas.
- Each stage's replicas are spread evenly. Where that does not come out even, the same islands have
  one more of each stage.
- Who has been there for longest stays where it is. Who comes goes where its stage has the fewest,
  and to the other seats of its process if it can.
- When an island has to end, because a stage has too few, its replicas work in the others at once.
  It is theirs still: when there are enough again, they are back.
- Who is late, or about to leave, is not counted while its stage has others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from swarmrt.ids import PeerId, SeatId, peer_of
from swarmrt.scheduler.instructions import Instruction, ReportIslands
from swarmrt.scheduler.trainer.membership.joining.introducing import is_near, vouch
from swarmrt.scheduler.trainer.membership.members import NO_ISLAND, Member, Membership
from swarmrt.scheduler.trainer.run import Run

Stage = Sequence[tuple[SeatId, int]]
"""The replicas of a stage, who has been there for longest first, and the island of each."""


def spread(most: int, stages: Sequence[Stage]) -> dict[SeatId, int]:
    """Return the island that each replica works in from now on, of at most so many."""
    number = max(1, min(most, *map(len, stages)))
    kept = _kept(number, most, stages)
    found: dict[SeatId, int] = {}
    processes: dict[PeerId, int] = {}  # where the seat of each is that was spread first
    for stage in stages:
        found |= _spread_stage(kept, stage, processes)
        for seat, _ in stage:
            processes.setdefault(peer_of(seat), found[seat])
    return found


def _kept(number: int, most: int, stages: Sequence[Stage]) -> list[int]:
    """Return the islands that go on: those that have most, of as many stages as can be."""
    served = Counter(island for stage in stages for island in {island for _, island in stage})
    replicas = Counter(island for stage in stages for _, island in stage)
    by_worth = sorted(range(most), key=lambda one: (-served[one], -replicas[one], one))
    return sorted(by_worth[:number])


def _spread_stage(
    kept: Sequence[int], stage: Stage, processes: Mapping[PeerId, int]
) -> dict[SeatId, int]:
    """Return where the replicas of a stage are: as many go where others of their process are as
    there is room for; then of the others those stay that can."""
    each, more = divmod(len(stage), len(kept))
    room = {island: each + (place < more) for place, island in enumerate(kept)}
    found: dict[SeatId, int] = {}

    def place(seat: SeatId, island: int | None) -> None:
        if seat not in found and island is not None and room.get(island):
            room[island] -= 1
            found[seat] = island

    for seat, _ in stage:
        place(seat, processes.get(peer_of(seat)))
    for seat, island in stage:
        place(seat, island)
    for seat, _ in stage:
        place(seat, max(kept, key=lambda one: (room[one], -one)))
    return found


class Islands:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._counted: list[list[tuple[SeatId, int]]] = []  # by stage: seats, and their terms

    def settle(self) -> list[Instruction]:
        """Spread the replicas anew, if others are there than before; tell whom it concerns."""
        run = self._run
        most = run.settings.islands
        if most == 1:
            return []
        counted = [self._counted_of(stage) for stage in range(run.num_stages)]
        names = [[(member.peer, member.term) for member in stage] for stage in counted]
        if names == self._counted:
            return []
        self._counted = names
        members = {member.peer: member for stage in counted for member in stage}
        before = {peer: member.island for peer, member in members.items()}
        after = spread(most, [[(m.peer, m.home) for m in stage] for stage in counted])
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
        fit = [m for m in ready if not (m.leaving or m.draining or m.suspect)]
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
