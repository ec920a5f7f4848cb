"""A round of the first phase of a commit, in all stages at once: who reduces, and what they say.

Rules:
- A round that misses a member, or is late, is void; the next one has a higher number.
- Where a stage's replicas are unlike, owners of parts update once the norm is known, and the round
  is whole when all of that is everywhere.
- Replicas of a stage say the same. Who does not is done without.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from swarmrt.ids import SeatId
from swarmrt.messages import Prepare, Prepared, Refused, Roster, Update, Updated
from swarmrt.scheduler.trainer.agreeing import odd_ones
from swarmrt.scheduler.trainer.plausible import is_finite

NORMS_DIFFER = 1e-9  # of a norm, by which hardware may round a sum in float64 differently


@dataclass(slots=True)
class PrepareRound:
    """A round of Prepare, in all stages at once."""

    epoch: int
    step: int
    number: int
    rosters: tuple[Roster, ...]  # by stage
    listeners: tuple[tuple[SeatId, ...], ...]  # by stage
    tokens: int
    began_at: float
    skip: bool = False  # the step: nothing is combined
    by_owners: frozenset[int] = frozenset()  # stages whose update is made by the parts' owners
    norm: float | None = None  # of the whole model, once all are prepared
    prepared: dict[SeatId, Prepared] = field(default_factory=dict)
    updated: dict[SeatId, Updated] = field(default_factory=dict)
    waits_for: dict[SeatId, SeatId] = field(default_factory=dict)  # by the word of each, its last
    handed_on: set[SeatId] = field(default_factory=set)  # listeners who have what Apply is about
    held_at: float | None = None  # since then all is prepared, and Apply is held
    held_s: float = 0.0  # Apply was

    def prepares(self) -> list[tuple[SeatId, Prepare]]:
        """Return what to tell everyone who takes part or listens."""
        told = []
        for stage, (roster, listeners) in enumerate(zip(self.rosters, self.listeners, strict=True)):
            how = (self.tokens, self.skip, stage in self.by_owners)
            prepare = Prepare(self.epoch, self.step, self.number, roster, listeners, *how)
            told += [(peer, prepare) for peer, _ in roster]
            told += [(peer, prepare) for peer in listeners]
        return told

    @property
    def members(self) -> dict[SeatId, int]:
        """Peer → stage, without listeners."""
        return {peer: stage for stage, roster in enumerate(self.rosters) for peer, _ in roster}

    @property
    def audience(self) -> list[tuple[SeatId, int]]:
        """Everyone who takes part or listens, with the stage."""
        told = []
        for stage, (roster, listeners) in enumerate(zip(self.rosters, self.listeners, strict=True)):
            told += [(peer, stage) for peer in (*dict(roster), *listeners)]
        return told

    def updates(self) -> list[tuple[SeatId, Update]]:
        """Return what to tell those whose stages update now. Listeners get what comes of it."""
        assert self.norm is not None
        update = Update(self.epoch, self.step, self.number, self.norm)
        return [(peer, update) for stage in self.by_owners for peer, _ in self.rosters[stage]]

    def is_meant(self, message: Prepared | Updated | Refused) -> bool:
        """Return whether a word is of this round."""
        return (message.epoch, message.step, message.round) == (self.epoch, self.step, self.number)

    @property
    def is_prepared(self) -> bool:
        return len(self.prepared) == len(self.members)

    def has_answered(self, peer: SeatId) -> bool:
        """Return whether a member has said what it was last asked for."""
        if self.norm is None or self.members[peer] not in self.by_owners:
            return peer in self.prepared
        return peer in self.updated

    def is_here(self, listener: SeatId, message: Prepared | Updated) -> None:
        """Take a listener's word that it has a stage's sum, or where owners update what they have
        made of it."""
        for stage, listeners in enumerate(self.listeners):
            if listener in listeners and isinstance(message, Updated) == (stage in self.by_owners):
                self.handed_on.add(listener)

    def says(self, peer: SeatId, waits_for: SeatId) -> None:
        """Take a member's word on whose parts it lacks."""
        stage = self.members.get(peer)
        if stage is not None and waits_for != peer and self.members.get(waits_for) == stage:
            self.waits_for[peer] = waits_for

    def named(self) -> Counter[SeatId]:
        """Return how many words each is waited for by, in the stages that hold the round up. Who
        has not all sums where another one has is in its own way. Once all have answered, it is the
        stage that was last, by what its members said before."""
        missing = self.missing()
        if not missing:
            last = self.members[next(reversed(self.updated or self.prepared))]
            return Counter(o for peer, o in self.waits_for.items() if self.members[peer] == last)
        done = {stage for peer, stage in self.members.items() if peer not in missing}
        own = {peer: peer for peer in missing if self.members[peer] in done}
        words = self.waits_for | own
        return Counter(words[peer] for peer in missing if peer in words)

    def missing(self) -> list[SeatId]:
        return sorted(peer for peer in self.members if not self.has_answered(peer))

    def whole_norm(self) -> float:
        """Return the norm of the whole model's mean gradient. All replicas of a stage say the same,
        but for the last bits."""
        return math.sqrt(sum(self.prepared[roster[0][0]].squared_norm for roster in self.rosters))

    def odd_ones(self, trust: Callable[[SeatId], Any]) -> list[SeatId]:
        """Return who holds another gradient than the others of its stage, or says that its norm is
        another: all sum the same parts in the same order."""

        def rank(peer: SeatId) -> tuple[bool, Any]:
            return not is_finite(self.prepared[peer].squared_norm), trust(peer)

        odd: list[SeatId] = []
        for roster in self.rosters:
            odd += odd_ones(self._words(roster), rank)
        return odd

    def _words(self, roster: Roster) -> dict[SeatId, tuple[str, float]]:
        """Return what members say. Norms that differ in their last bits are one and the same:
        unlike replicas add squares in another order."""
        words: dict[SeatId, tuple[str, float]] = {}
        for peer, _ in roster:
            prepared = self.prepared[peer]
            norm = prepared.squared_norm if is_finite(prepared.squared_norm) else math.inf
            word = (prepared.digest, norm)
            words[peer] = next((w for w in words.values() if _is_close(w, word)), word)
        return words

    def odd_updates(self, trust: Callable[[SeatId], Any]) -> list[SeatId]:
        """Return who holds another state than the others of its stage, though all adopt the owners'
        bytes."""
        odd: list[SeatId] = []
        for stage in sorted(self.by_owners):
            words = {peer: self.updated[peer].digest for peer, _ in self.rosters[stage]}
            odd += odd_ones(words, trust)
        return odd

    def agreed(self, stage: int) -> str:
        """Return the digest of what a stage applies, which all of its members have named; empty
        where its only one had nothing to compare."""
        first = self.rosters[stage][0][0]
        words = self.updated if stage in self.by_owners else self.prepared
        return words[first].digest

    def not_finite(self) -> int | None:
        """The last stage whose gradient is not finite: those before it are given what it has."""
        for stage, roster in reversed(list(enumerate(self.rosters))):
            if any(not is_finite(self.prepared[peer].squared_norm) for peer, _ in roster):
                return stage
        return None

    def suspects(self, blamed: Callable[[list[SeatId]], list[SeatId]]) -> list[SeatId]:
        """Return who is waited for, and could be done without. Where some have answered, all sums
        are there. Where nobody has, anybody may be the one that keeps its sums to itself."""
        found: list[SeatId] = []
        for roster in self.rosters:
            missing = [peer for peer, _ in roster if not self.has_answered(peer)]
            if len(missing) < len(roster):
                found += missing
            elif len(roster) > 1:
                found += blamed(missing)
        return found

    def alone(self) -> list[int]:
        """Stages whose only member has not answered."""
        lone = [stage for stage, roster in enumerate(self.rosters) if len(roster) == 1]
        return [stage for stage in lone if not self.has_answered(self.rosters[stage][0][0])]


def _is_close(one: tuple[str, float], other: tuple[str, float]) -> bool:
    return one[0] == other[0] and math.isclose(one[1], other[1], rel_tol=NORMS_DIFFER)
