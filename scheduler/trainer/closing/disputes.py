"""Rounds that come to nothing: whom the step goes on without. One member's word is not enough.

Rules:
- Two members that cannot reach each other: both say so, or most others say so of one. A word that
  nobody confirms makes a round void, once; whoever repeats it is the one to go, when the others
  have had the time to say so as well.
- A gradient that is not finite at a stage: who summed it up names the contributor. Whoever is in
  dispute with more others goes. Nobody named: the least trusted contributor.
- Without it, it is not finite again: it was not that one's fault, and the next one goes. When all
  have been tried, those after this stage who gave it the gradients. When they have been too, it is
  the data, or what was learned from it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal

from swarmrt.ids import SeatId
from swarmrt.scheduler.timing.times import CONFIRM_S
from swarmrt.scheduler.trainer.closing.sync.prepare_round import PrepareRound

Trust = Callable[[SeatId], Any]  # the less, the more


class Unreachable:
    """The reports of who could not reach whom, in one step."""

    def __init__(self) -> None:
        self._said: set[tuple[SeatId, SeatId]] = set()
        self._first: dict[SeatId, tuple[int, float]] = {}  # accuser → round and time of its first

    def said(
        self, accuser: SeatId, other: SeatId, number: int, members: Collection[SeatId], now: float
    ) -> Literal["between them", "the other", "the accuser", "nobody", "too soon"]:
        """Return whose trouble it is, as far as is known by now."""
        first, first_at = self._first.setdefault(accuser, (number, now))
        self._said.add((accuser, other))
        if (other, accuser) in self._said:
            return "between them"
        accusers = sum(accused == other for _, accused in self._said)
        if accusers >= 2 and 2 * accusers > len(members) - 1:
            return "the other"
        if number == first:
            return "nobody"
        return "the accuser" if now - first_at >= CONFIRM_S else "too soon"


@dataclass(frozen=True)
class Finding:
    """The outcome of a dispute: who is held to be at fault, who is not any more, and who has to
    compute again for it."""

    culprits: tuple[SeatId, ...] = ()
    acquitted: tuple[SeatId, ...] = ()
    again: tuple[SeatId, ...] = ()
    hopeless: str = ""  # why there is no way on


class NotFinite:
    """The accusations of gradients that are not finite, in one step."""

    def __init__(self) -> None:
        self._disputes: defaultdict[SeatId, set[SeatId]] = defaultdict(set)
        self._tried: defaultdict[int, dict[SeatId, frozenset[int]]] = defaultdict(dict)
        # stage → who was done without, and the microbatches that it had accumulated

    def named(self, accuser: SeatId, other: SeatId) -> SeatId:
        """Return whom to hold to be at fault, when the accuser has summed up the other's slice."""
        self._disputes[accuser].add(other)
        self._disputes[other].add(accuser)
        more = len(self._disputes[accuser]) > len(self._disputes[other])
        return accuser if more else other

    def found(
        self, round_: PrepareRound, stage: int, suspect: SeatId | None, trust: Trust
    ) -> Finding:
        """Return what follows from one at this stage; the suspect is who was named."""
        roster = {peer: frozenset(indices) for peer, indices in round_.rosters[stage]}
        tried = self._tried[stage]
        untried = [peer for peer, indices in roster.items() if indices and peer not in tried]
        if suspect is None or suspect in tried:
            suspect = max(untried, key=trust, default=None)
        if suspect is None:
            return self._look_further(round_, stage, trust)
        acquitted = tuple(tried)
        tried[suspect] = roster.get(suspect, frozenset())
        return Finding((suspect,), acquitted)

    def _look_further(self, round_: PrepareRound, stage: int, trust: Trust) -> Finding:
        """Find out, when all contributors have been tried, if it was the gradients they were
        given."""
        tried = self._tried[stage]
        here = {peer: frozenset(indices) for peer, indices in round_.rosters[stage]}
        mine = frozenset().union(*here.values())
        shared = mine & frozenset().union(*tried.values())
        after = dict(round_.rosters[stage + 1]) if stage + 1 < len(round_.rosters) else {}
        tried_givers = self._tried[stage + 1]
        givers = [
            peer
            for peer, indices in after.items()
            if shared.intersection(indices) and peer not in tried_givers
        ]
        if givers and (len(after) > 1 or tried_givers):
            giver = max(givers, key=trust)
            acquitted = (*tried, *tried_givers)
            again = tuple(peer for peer, had in here.items() if had)
            tried_givers[giver] = frozenset(after[giver])
            tried.clear()
            return Finding((giver,), acquitted, again)
        who = ", ".join(sorted({*tried, *here}))
        which = ", ".join(map(str, sorted(shared))) or "of them all"
        return Finding(
            hopeless=f"the gradient of step {round_.step + 1} is not finite at stage {stage}, "
            f"whoever computes microbatch {which}: {who}"
        )
