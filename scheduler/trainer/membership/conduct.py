"""The conduct of peers in the run, whatever has become of their membership meanwhile.

Rules:
- A fault bars its peer for a number of versions, which doubles with each one. Commits that it has
  taken part in make up for it. Who has made all wait is barred for several times as long, too: so
  little of the time is lost, whatever it does.
- Who is only slow has done nothing, and rests: several times as long as was waited for it, and for
  twice as long each time.
- A fault that turns out to be another's is taken back.
- Who says what no honest peer says is expelled: none of the seats of its process is seen any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from swarmrt.ids import PeerId, SeatId, peer_of
from swarmrt.scheduler.timing.times import CUT_S, LEAST_REST_S, MOST_REST_S

MOST_DOUBLINGS = 10  # whoever is barred for a thousand versions may have been repaired meanwhile
MAKES_UP = 8  # commits, for one fault
WAITED_FOR = 8  # times as long as all have waited for it
MOST_AT_ODDS = 64  # others that are remembered of each
MOST_KNOWN = 4096  # peers that are remembered, the newest of them


Kind = Literal["fault", "cut", "unlike", "lie", "slow", "longer"]
"""Barred for longer and longer; this step; this step, and the others of its stage do not compare
updates any more; expelled; resting, for rounds or for whole steps."""


class Charge(NamedTuple):
    """A charge to be held against a member, once the event that showed it is dealt with."""

    peer: SeatId
    reason: str
    kind: Kind
    waited_s: float = 0.0  # that all have waited for it


@dataclass(slots=True)
class Record:
    faults: int = 0
    commits: int = 0  # that it has taken part in since the last fault, or that made up for one
    contradictions: int = 0  # of weights that are known
    cuts: int = 0  # between it and others, by the word of both
    gave_way: int = 0  # in one of them
    rests: int = 0  # because it was slow, since it last made up for a fault or for one of these
    barred_until: int = 0  # the version before which it is not admitted again
    barred_until_s: float = -math.inf  # and the time
    cut_until: int = 0  # a version before which it is not admitted, unless it is so late
    cut_until_s: float = -math.inf


class Conduct:
    def __init__(self) -> None:
        self._records: dict[SeatId, Record] = {}  # of those with anything in it
        self._expelled: dict[PeerId, None] = {}
        self._at_odds: dict[SeatId, set[SeatId]] = {}  # never made up for: who lied once has lied

    # ------------------------------------------------------------------ what was done

    def fault(self, peer: SeatId, version: int, now: float, waited_s: float = 0.0) -> None:
        """Bar it for this step, or for longer if it was barred before."""
        record = self._record(peer)
        record.barred_until = version + 2 ** min(record.faults, MOST_DOUBLINGS)
        record.barred_until_s = now + WAITED_FOR * waited_s
        record.faults, record.commits = record.faults + 1, 0

    def cut(self, peer: SeatId, version: int, now: float) -> None:
        """Take note that this step goes on without it, which is not its fault. If the step takes
        long without it, it may come again: what was broken may be whole by then."""
        record = self._record(peer)
        record.cut_until, record.cut_until_s = version + 1, now + CUT_S

    def rest(self, peer: SeatId, now: float, waited_s: float) -> float:
        """Bar it for a while because it is slow; for how many seconds."""
        record = self._record(peer)
        once_s = max(LEAST_REST_S, WAITED_FOR * waited_s)
        rest_s = min(MOST_REST_S, once_s * 2.0 ** min(record.rests, MOST_DOUBLINGS))
        record.barred_until_s = max(record.barred_until_s, now + rest_s)
        record.rests, record.commits = record.rests + 1, 0
        return rest_s

    def choose_of(self, one: SeatId, other: SeatId, owned: Callable[[SeatId], int]) -> SeatId:
        """Return which of two that cannot reach each other goes: who has been cut off more often,
        else who went less often for it, else who has less to be computed again."""

        def rank(peer: SeatId) -> tuple[int, int, int]:
            record = self._record(peer)
            return record.cuts, -record.gave_way, -owned(peer)

        goes = max(one, other, key=rank)
        for peer in (one, other):
            self._record(peer).cuts += 1
        self._record(goes).gave_way += 1
        return goes

    def at_odds(self, one: SeatId, other: SeatId, trust: Callable[[SeatId], Any]) -> SeatId:
        """Return which of two that contradict each other goes, where nobody else has seen it: who
        is at odds with more others, else the one that is trusted less."""
        for peer, whom in ((one, other), (other, one)):
            its = self._at_odds.setdefault(peer, set())
            _forget_oldest(self._at_odds)
            if len(its) < MOST_AT_ODDS:
                its.add(whom)
        return max(one, other, key=lambda peer: (len(self._at_odds[peer]), trust(peer)))

    def acquit(self, peer: SeatId) -> None:
        """Take back its newest fault, which was another's."""
        record = self._records.get(peer)
        if record is not None:
            record.faults = max(0, record.faults - 1)
            self.pardon(peer)

    def pardon(self, peer: SeatId) -> None:
        """Let it in again, for it is needed. Its faults stay."""
        record = self._records.get(peer)
        if record is not None:
            record.barred_until, record.barred_until_s = 0, -math.inf
            record.cut_until = 0

    def contradicts(self, peer: SeatId) -> int:
        """Count that it says that known weights are others; return how often by now."""
        record = self._record(peer)
        record.contradictions += 1
        return record.contradictions

    def took_part(self, peer: SeatId) -> None:
        """Take note that it took part in a commit that went well."""
        record = self._records.get(peer)
        if record is None:
            return
        record.commits += 1
        if record.commits >= MAKES_UP:
            record.faults, record.commits = max(0, record.faults - 1), 0
            record.rests = max(0, record.rests - 1)
            if not record.faults and not record.rests:
                del self._records[peer]

    def expel(self, peer: SeatId) -> None:
        """See no seat of its process any more."""
        self._expelled[peer_of(peer)] = None
        _forget_oldest(self._expelled)

    # ------------------------------------------------------------------ what comes of it

    def is_expelled(self, peer: SeatId) -> bool:
        return peer_of(peer) in self._expelled

    def is_barred(self, peer: SeatId, version: int, now: float) -> bool:
        record = self._records.get(peer)
        if record is None:
            return False
        is_cut = version < record.cut_until and now < record.cut_until_s
        return is_cut or version < record.barred_until or now < record.barred_until_s

    def faults(self, peer: SeatId) -> int:
        record = self._records.get(peer)
        return record.faults if record is not None else 0

    def _record(self, peer: SeatId) -> Record:
        record = self._records.setdefault(peer, Record())
        _forget_oldest(self._records)
        return record


def _forget_oldest(known: dict[SeatId, Any]) -> None:
    while len(known) > MOST_KNOWN:
        del known[next(iter(known))]
