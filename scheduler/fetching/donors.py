"""A donor of a state, as whoever fetches it knows it: what it offers, owes, and how fast it is.

    ASKED ──its offer──▶ OFFERING ──nothing comes, for longer than it should take──▶ ASKED
      │                     │
      └──── its link breaks ┴──▶ AWAY ──after a while──▶ ASKED

From each of them it goes OUT when it refuses, lies, or was asked in vain too often; out of there a
late answer brings back whoever was only silent.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from swarmrt.ids import PeerId
from swarmrt.scheduler.timing.estimate import Estimate
from swarmrt.scheduler.timing.times import AGAIN_S, CHUNK_S, OFFER_S

OF_ONE = 2  # chunks that one donor is asked for at once: one on its way, and one behind it
MISSES = 5  # in vain, each after twice as long, before a donor is out


class Standing(enum.Enum):
    ASKED = "asked"  # for its offer
    OFFERING = "offering"
    AWAY = "away"  # it cannot be reached
    OUT = "out"


@dataclass(slots=True)
class Donor:
    peer: PeerId
    standing: Standing = Standing.ASKED
    digest: str = ""  # of the file that it offers, or has last offered
    owes: list[int] = field(default_factory=list)  # offsets that it is waited for, in their order
    debts: set[int] = field(default_factory=set)  # these, and those that it may still give
    chunk_time: Estimate = field(default_factory=Estimate)
    asked_bytes: int = 0  # since all was asked for the last time
    misses: int = 0  # since a chunk came
    since: float = 0.0  # its last chunk, or the first question after that
    moved_at: float = 0.0  # the last that was seen of it
    came_bytes: int = 0  # of states, at the last look
    again_at: float = 0.0  # while it is away
    was_silent: bool = False  # this is why it is out
    is_lost: bool = False  # its link broke, and nothing was heard since

    @property
    def deadline(self) -> float:
        """Return when something is to be done about it, if nothing comes before."""
        match self.standing:
            case Standing.ASKED:
                return self.moved_at + OFFER_S * 2.0**self.misses
            case Standing.OFFERING if self.owes:
                return self.moved_at + self.chunk_time.patience_s(CHUNK_S, self.misses)
            case Standing.AWAY:
                return self.again_at
        return math.inf

    @property
    def is_done_with(self) -> bool:
        """Return whether nothing that it says counts any more."""
        return self.standing is Standing.OUT and not self.was_silent

    @property
    def is_awaited(self) -> bool:
        """Return whether something is to come from it, as far as is known."""
        is_asked = self.standing is Standing.ASKED and not self.is_lost
        return is_asked or bool(self.owes)

    def offers(self, digest: str) -> bool:
        return self.standing is Standing.OFFERING and self.digest == digest

    def takes_s(self, prior_s: float) -> float:
        """Return in how many seconds it would have given one more chunk; `prior_s` is for a donor
        that has given none yet."""
        return (len(self.owes) + 1) * self._mean_s(prior_s)

    def late_at(self, offset: int, within_s: float, prior_s: float, now: float) -> float:
        """Return when the chunk that it owes is late for somebody who wants it within so many
        seconds: now if it is not expected by then, else when it has taken longer than that."""
        expected_at = self.since + (1 + self.owes.index(offset)) * self._mean_s(prior_s)
        return now if expected_at > now + within_s else self.since + within_s

    def _mean_s(self, prior_s: float) -> float:
        return self.chunk_time.mean_s if self.chunk_time.samples else prior_s

    # ------------------------------------------------------------------ what happens to it

    def ask_offer(self, now: float) -> None:
        """Have it say which file it has."""
        self.standing, self.moved_at = Standing.ASKED, now

    def ask(self, offset: int, length: int, now: float) -> None:
        if not self.owes:
            self.since = self.moved_at = now
        self.owes.append(offset)
        self.debts.add(offset)
        self.asked_bytes += length

    def gave(self, offset: int, now: float) -> float | None:
        """Forgive it whatever it missed before. Return how long the chunk took; None for one that
        came when nobody waited for it any more."""
        self.debts.discard(offset)
        self.misses, self.moved_at, self.was_silent = 0, now, False
        if offset not in self.owes:
            return None
        self.owes.remove(offset)
        seconds, self.since = now - self.since, now
        self.chunk_time.add_answer(seconds, self.chunk_time.patience_s(CHUNK_S))
        return seconds

    def looked_at(self, came_bytes: int, now: float) -> None:
        """Note whether bytes of it have come since the last look, of chunks that are not whole."""
        if came_bytes != self.came_bytes:
            self.came_bytes, self.moved_at = came_bytes, now

    def offer(self, digest: str) -> None:
        self.standing, self.digest, self.is_lost = Standing.OFFERING, digest, False

    def miss(self) -> None:
        """Note that it was asked in vain. What was asked too often is out."""
        self.misses += 1
        if self.misses >= MISSES:
            self.standing, self.was_silent, self.is_lost = Standing.OUT, True, False

    def leave(self, now: float) -> None:
        """Note that it cannot be reached. It is asked again later, ever less often."""
        self.again_at = now + AGAIN_S * 2.0**self.misses
        self.miss()
        if self.standing is not Standing.OUT:
            self.standing, self.is_lost = Standing.AWAY, True

    def expel(self) -> None:
        self.standing, self.was_silent, self.is_lost = Standing.OUT, False, False

    def begin_again(self) -> None:
        """Give it another chance, as all is asked for anew. It may still give what it owed."""
        self.owes.clear()
        self.misses = self.asked_bytes = 0
        self.was_silent = self.is_lost = False

    def validate(self) -> None:
        assert len(self.owes) <= OF_ONE and self.debts.issuperset(self.owes)
        assert self.standing is Standing.OFFERING or not self.owes
