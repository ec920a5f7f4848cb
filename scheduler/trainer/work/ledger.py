"""The ledger of one step: who owns each (microbatch, stage), and who has accumulated it.

Rules:
- One owner of each (microbatch, stage) at any moment. The first claim of a microbatch sets all.
- A receipt counts once, and only from the owner.
- Ownership ends in two ways: the owner releases it, or is fenced, and then all that it had in this
  step is void. What nobody owns is vacant.
- A vacancy is filled from retained frames, if both neighbours have theirs; otherwise by the claim
  of another attempt, which passes through the stages that are accumulated.
- The step is complete when every (microbatch, stage) has its receipt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from swarmrt.ids import SeatId
from swarmrt.messages import Claim, Path, Roster

NOBODY = SeatId("")


@dataclass(slots=True)
class Entry:
    """A microbatch that was claimed."""

    owners: list[SeatId]  # by stage; NOBODY where it is vacant
    loss_sum: float
    tokens: int
    routes: dict[SeatId, Path]  # that were granted, by claimant
    settled: set[int]  # stages whose owner has run forward
    accumulated: set[int] = field(default_factory=set)  # stages
    frames_gone: bool = False  # a neighbour did not retain what a new owner needs


@dataclass(frozen=True, slots=True)
class Grant:
    path: Path
    need: tuple[int, ...]


class Ledger:
    def __init__(self, step: int, microbatches: int, num_stages: int) -> None:
        self.step = step
        self.microbatches = microbatches
        self.num_stages = num_stages
        self._stages = tuple(range(num_stages))
        self._entries: dict[int, Entry] = {}
        self._vacant: dict[tuple[int, int], None] = {}  # (microbatch index, stage)
        self._receipts = 0
        self._wanted = microbatches * num_stages
        self._most_receipts = 0  # that there ever were
        self.has_advanced = False  # by the newest claim or receipt: no such one was there before

    # ------------------------------------------------------------------ claims and receipts

    def claim(self, claim: Claim, is_live: Callable[[SeatId, int], bool]) -> Grant | None:
        """Return which path backward takes; None for an attempt that is not needed.

        Asked again by the same claimant, it gives an answer that is as good.
        """
        index, claimant = claim.work.microbatch.index, claim.route[-1]
        entry = self._entries.get(index)
        self.has_advanced = entry is None
        if entry is None:
            return self._first_claim(claim, is_live)
        vacant = [stage for stage, owner in enumerate(entry.owners) if owner == NOBODY]
        if claimant not in entry.routes and not vacant:
            return None
        entry.routes[claimant] = claim.route
        for stage in vacant:
            if is_live(claim.route[stage], stage):
                self._own(index, stage, claim.route[stage])
                entry.settled.add(stage)
        entry.frames_gone = False
        return self._grant(entry, claim.route)

    def _first_claim(self, claim: Claim, is_live: Callable[[SeatId, int], bool]) -> Grant:
        """Grant the route of a first claim: whoever is live on it owns its stage."""
        index, route = claim.work.microbatch.index, claim.route
        owners = [peer if is_live(peer, stage) else NOBODY for stage, peer in enumerate(route)]
        self._entries[index] = Entry(
            owners=owners,
            loss_sum=claim.loss_sum,
            tokens=claim.tokens,
            routes={route[-1]: route},
            settled={stage for stage in self._stages if owners[stage] != NOBODY},
        )
        if NOBODY in owners:
            self._vacant |= {(index, s): None for s in self._stages if owners[s] == NOBODY}
        return Grant(route, self._stages)

    def _grant(self, entry: Entry, route: Path) -> Grant | None:
        """Grant a path: through the owners where they accumulate, through this route elsewhere."""
        need = self._unaccumulated(entry)
        if not need:
            return None
        path = [
            entry.owners[stage] if stage in need and entry.owners[stage] != NOBODY else peer
            for stage, peer in enumerate(route)
        ]
        return Grant(tuple(path), need)

    def receipt(self, peer: SeatId, index: int, stage: int) -> bool:
        """Book a receipt. False when it is not the first one from the owner."""
        entry = self._entries.get(index)
        if entry is None or not 0 <= stage < self.num_stages:
            return False
        if entry.owners[stage] != peer or stage in entry.accumulated:
            return False
        entry.accumulated.add(stage)
        entry.settled.add(stage)
        self._receipts += 1
        self.has_advanced = self._receipts > self._most_receipts
        if self.has_advanced:
            self._most_receipts = self._receipts
        return True

    # ------------------------------------------------------------------ ownership moves

    def release(self, peer: SeatId, index: int, stage: int) -> bool:
        """The owner has not accumulated it, and will not. False when it is not the owner."""
        entry = self._entries.get(index)
        if entry is None or entry.owners[stage] != peer or stage in entry.accumulated:
            return False
        entry.frames_gone = True
        self._vacate(index, stage)
        return True

    def fence(self, peer: SeatId) -> int:
        """Void all that this peer has in the step; return how many (microbatch, stage) that was."""
        owned = self.owned_by(peer)
        for index, stage in owned:
            self._vacate(index, stage)
        return len(owned)

    def owned_by(self, peer: SeatId) -> list[tuple[int, int]]:
        return [
            (index, stage)
            for index, entry in self._entries.items()
            for stage, owner in enumerate(entry.owners)
            if owner == peer
        ]

    def load(self, stage: int) -> Counter[SeatId]:
        """Return how much each owner of a stage has yet to accumulate."""
        return Counter(
            entry.owners[stage]
            for entry in self._entries.values()
            if stage not in entry.accumulated
        )

    @property
    def advanced(self) -> int:
        """Return how much there ever was of claims and receipts: it never falls."""
        return len(self._entries) + self._most_receipts

    @property
    def has_vacancies(self) -> bool:
        return bool(self._vacant)

    def vacancies(self) -> list[tuple[int, int]]:
        return sorted(self._vacant)

    def has_frames(self, index: int, stage: int) -> bool:
        """Return whether the neighbours of a vacancy have, or will have, the frames that it
        needs."""
        entry = self._entries[index]
        neighbours = [s for s in (stage - 1, stage + 1) if 0 <= s < self.num_stages]
        return not entry.frames_gone and all(
            entry.owners[s] != NOBODY and s in entry.settled for s in neighbours
        )

    def assign(self, index: int, stage: int, peer: SeatId) -> Grant:
        """A new owner, who recovers it from its neighbours' frames."""
        self._own(index, stage, peer)
        return self.grant_to_owners(index)

    def grant_to_owners(self, index: int) -> Grant:
        """The path through all owners, and what they still need to accumulate."""
        entry = self._entries[index]
        return Grant(tuple(entry.owners), self._unaccumulated(entry))

    def owner(self, index: int, stage: int) -> SeatId:
        """Return who owns it; NOBODY also before it is claimed."""
        entry = self._entries.get(index)
        return entry.owners[stage] if entry is not None else NOBODY

    def is_left_to(self, peer: SeatId, index: int, stage: int) -> bool:
        """Return whether this peer may have it to compute: nobody else owns it, or has accumulated
        it."""
        entry = self._entries.get(index)
        if entry is None:
            return True
        return stage not in entry.accumulated and entry.owners[stage] in (peer, NOBODY)

    def frontier(self, index: int) -> list[tuple[int, SeatId]]:
        """Stages that should be next to accumulate, with their owners: what comes after is done."""
        entry = self._entries.get(index)
        if entry is None:
            return []
        return [
            (stage, entry.owners[stage])
            for stage in self._unaccumulated(entry)
            if entry.owners[stage] != NOBODY
            and (stage == self.num_stages - 1 or stage + 1 in entry.accumulated)
        ]

    def next_owner(self, index: int) -> tuple[int, SeatId] | None:
        """Return the stage of a claimed microbatch that accumulates next, and its owner; None when
        it is finished."""
        entry = self._entries[index]
        stage = self.num_stages - 1
        while stage in entry.accumulated:
            stage -= 1
        return (stage, entry.owners[stage]) if stage >= 0 else None

    def _own(self, index: int, stage: int, peer: SeatId) -> None:
        del self._vacant[index, stage]
        self._entries[index].owners[stage] = peer

    def _vacate(self, index: int, stage: int) -> None:
        entry = self._entries[index]
        entry.owners[stage] = NOBODY
        entry.settled.discard(stage)
        if stage in entry.accumulated:
            entry.accumulated.remove(stage)
            self._receipts -= 1
        self._vacant[index, stage] = None

    def _unaccumulated(self, entry: Entry) -> tuple[int, ...]:
        return tuple(s for s in self._stages if s not in entry.accumulated)

    # ------------------------------------------------------------------ the step

    def is_claimed(self, index: int) -> bool:
        return index in self._entries

    @property
    def complete(self) -> bool:
        return self._receipts == self._wanted

    def missing(self) -> list[tuple[int, int]]:
        """Return the (microbatch index, stage) pairs that have no receipt yet."""
        return [
            (index, stage)
            for index in range(self.microbatches)
            for stage in range(self.num_stages)
            if index not in self._entries or stage not in self._entries[index].accumulated
        ]

    def roster(self, stage: int, members: Iterable[SeatId]) -> Roster:
        """Return, for each member of the stage, sorted, the microbatches that it accumulated."""
        owned: dict[SeatId, list[int]] = {member: [] for member in sorted(members)}
        for index, entry in sorted(self._entries.items()):
            owned[entry.owners[stage]].append(index)
        return tuple((peer, tuple(indices)) for peer, indices in owned.items())

    @property
    def tokens(self) -> int:
        return sum(entry.tokens for entry in self._entries.values())

    @property
    def loss(self) -> float:
        """Nats a token over the granted microbatches, in the order of their indices."""
        total = sum(self._entries[index].loss_sum for index in sorted(self._entries))
        return total / max(1, self.tokens)

    def validate(self) -> None:
        stages, receipts = set(range(self.num_stages)), 0
        for index, entry in self._entries.items():
            assert 0 <= index < self.microbatches
            assert len(entry.owners) == self.num_stages
            assert entry.accumulated <= stages
            receipts += len(entry.accumulated)
            if self._vacant or NOBODY in entry.owners:
                for stage, owner in enumerate(entry.owners):
                    assert (owner == NOBODY) == ((index, stage) in self._vacant)
                    assert owner != NOBODY or stage not in entry.accumulated
        assert self._receipts == receipts
