"""A stage's reduce by its decisions alone, in any order of messages."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from swarmrt.ids import PeerId
from swarmrt.messages import Part, Prepare
from swarmrt.scheduler.instructions import Instruction, Send, SumPart
from swarmrt.scheduler.peer.updating.all_reduce import SLICES_AHEAD, AllReduce
from swarmrt.scheduler.peer.updating.cutting import MAX_PART_BYTES

A, B, C, NEW = map(PeerId, ("a", "b", "c", "new"))
ROSTERS = [
    ((A, (0,)),),
    ((A, (0,)), (B, (1,))),
    ((A, (0,)), (B, ()), (C, (1,))),
    ((A, (0,)), (B, (1,)), (C, (2,))),
]


class Exchange:
    """All rounds of a stage, and what is between them: in order on a link, not among links."""

    def __init__(self, roster: tuple[tuple[PeerId, tuple[int, ...]], ...], parts: int) -> None:
        prepare = Prepare(1, 0, 1, roster, (NEW,), 10)
        peers = [peer for peer, _ in roster] + [NEW]
        size = MAX_PART_BYTES * parts * len(roster)
        self.rounds = {peer: AllReduce(peer, prepare, size) for peer in peers}
        self.links: dict[tuple[PeerId, PeerId], list[Part]] = {}
        self.unsummed: Counter[tuple[PeerId, PeerId]] = Counter()  # slices by (sender, owner)
        self.most_ahead = 0
        for peer, round_ in self.rounds.items():
            self.act(peer, round_.start())

    def act(self, peer: PeerId, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(to, Part() as part):
                    self.links.setdefault((peer, to), []).append(part)
                    self.unsummed[peer, to] += not part.summed
                    self.most_ahead = max(self.most_ahead, self.unsummed[peer, to])
                case SumPart(index=index):
                    self.act(peer, self.rounds[peer].part_summed(index))

    def deliver(self, rng: random.Random) -> bool:
        waiting = [link for link, parts in self.links.items() if parts]
        if not waiting:
            return False
        sender, to = link = rng.choice(waiting)
        part = self.links[link].pop(0)
        assert self.rounds[to].awaits(sender, part)
        if part.summed and sender != to:
            self.unsummed[to, sender] -= 1
        self.act(to, self.rounds[to].part_arrived(sender, part))
        return True


@pytest.mark.parametrize("roster", ROSTERS)
@pytest.mark.parametrize("parts", [1, SLICES_AHEAD, 3 * SLICES_AHEAD + 1])
def test_all_get_every_sum_and_no_slice_is_sent_far_ahead(
    roster: tuple[tuple[PeerId, tuple[int, ...]], ...], parts: int
) -> None:
    for seed in range(20):
        exchange, rng = Exchange(roster, parts), random.Random(seed)
        while exchange.deliver(rng):
            pass
        assert all(round_.is_whole for round_ in exchange.rounds.values())
        assert all(round_.parts == parts * len(roster) for round_ in exchange.rounds.values())
        assert exchange.most_ahead == (min(parts, SLICES_AHEAD) if len(roster) > 1 else 0)
