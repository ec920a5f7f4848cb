"""The microbatches that end whoever computes them, and when that ends the run.

Rules:
- A peer that ends in a computation says in which, unless its memory is at fault. Where a second one
  of the stage ends in the same one, so would the next. One that is alone may try a few times; the
  word of one alone counts for nothing where there are others.
- Who is lost without a word may have been killed by anybody. That counts when it happens again and
  again: to replicas each of which was let in after the one before was lost, in one step of which
  nothing more was done meanwhile, and with a microbatch that was under way each time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from swarmrt.ids import MicrobatchId, SeatId
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run

ALONE = 4  # times that one peer ends in the same computation, and no other one
SILENT = 3  # replicas that are lost one after the other, without a word
MOST_NAMED = 4  # microbatches


@dataclass(slots=True)
class Row:
    """Replicas of a stage that were lost one after the other."""

    reached: tuple[int, int]  # the version, and how much of the open steps was ever done
    suspects: frozenset[MicrobatchId]
    peers: list[SeatId]
    last_at: float


@dataclass(frozen=True)
class Hopeless:
    """The word on a run that cannot go on, and the microbatches that it is about."""

    reason: str
    microbatches: tuple[MicrobatchId, ...]


class Deaths:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._ended: dict[tuple[MicrobatchId, int], Counter[SeatId]] = {}  # and stage
        self._rows: dict[int, Row] = {}  # by stage

    def in_computation(
        self, member: Member, microbatch: MicrobatchId, reason: str
    ) -> Hopeless | None:
        """Count a member that says that it ends in this microbatch; return why the run cannot go
        on, if it cannot."""
        run = self._run
        if member.state is not Membership.READY or not run.is_open(microbatch):
            return None
        self._ended = {key: c for key, c in self._ended.items() if key[0].commits_in >= run.version}
        ended = self._ended.setdefault((microbatch, member.stage), Counter())
        ended[member.peer] += 1
        is_alone = not run.has_others(member.peer, member.stage)
        if len(ended) < 2 and not (is_alone and ended[member.peer] >= ALONE):
            return None
        who = " and ".join(sorted(ended))
        where = f"stage {member.stage} has ended {who}, who computed it"
        return Hopeless(f"microbatch {microbatch} at {where}: {reason}", (microbatch,))

    def without_a_word(self, member: Member, reason: str, now: float) -> Hopeless | None:
        """Count a member that is lost; return why the run cannot go on, if it cannot."""
        if member.state is not Membership.READY or member.leaving:
            return None
        suspects = frozenset(self._run.may_be_computed_by(member))
        reached = (self._run.version, self._run.books.advanced)
        row = self._rows.get(member.stage)
        if row is not None and reached[0] < row.reached[0]:
            return None  # after a rollback: it is not there again yet
        if row is None or reached > row.reached or not row.suspects & suspects:
            self._rows[member.stage] = Row(reached, suspects, [member.peer], now)
            return None
        if member.peer in row.peers or member.ready_at <= row.last_at:
            return None  # many at once
        row.suspects, row.last_at = row.suspects & suspects, now
        row.peers.append(member.peer)
        if len(row.peers) < SILENT:
            return None
        named = tuple(sorted(row.suspects))[:MOST_NAMED]
        which = f"microbatch {named[0]}" if len(row.suspects) == 1 else _one_of(named, row.suspects)
        who = f"{len(row.peers)} replicas of stage {member.stage} were lost one after the other"
        names = f"{', '.join(row.peers)}: {reason}"
        return Hopeless(f"{who} while they had {which} to compute ({names})", named)


def _one_of(named: tuple[MicrobatchId, ...], suspects: frozenset[MicrobatchId]) -> str:
    more = f" and {len(suspects) - len(named)} more" if len(suspects) > len(named) else ""
    return f"microbatches {', '.join(map(str, named))}{more}"
