"""The microbatches that end whoever computes them, and when that ends the run.

Rules:
- A peer that ends in a computation says in which, unless its memory is at fault. Where a second one
  of the stage ends in the same one, so would the next. One that is alone may try a few times; the
  word of one alone counts for nothing where there are others.
- Who is lost without a word may have been killed by anybody. That counts when it happens again and
  again: to replicas each of which was let in after the one before was lost, in one step of which
  nothing more was done meanwhile, and with a microbatch that was under way each time.
- What kills whoever computes it kills at one stage. So a loss does not count that comes with one of
  another process at another stage; nor that of a peer which comes back with what it has done, as
  its link was cut. For these, and for others to get further, the run waits a while before it ends,
  unless one more is lost.
- A loss in a step before that one, after a rollback, was not by that microbatch. Those in that step
  need not have been either, and count no more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from swarmrt.ids import MicrobatchId, SeatId, peer_of
from swarmrt.messages import Beacon
from swarmrt.scheduler.timing.times import AT_ONCE_S, BACK_S
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run

ALONE = 4  # times that one peer ends in the same computation, and no other one
SILENT = 3  # replicas that are lost one after the other, without a word
MOST_NAMED = 4  # microbatches


@dataclass(frozen=True)
class Loss:
    """A replica that is lost without a word."""

    peer: SeatId
    stage: int
    at: float
    reason: str
    suspects: frozenset[MicrobatchId]
    done: int  # computations, by its last word

    def is_beside(self, other: Loss) -> bool:
        """Return whether one event may have taken both, which no microbatch is."""
        is_elsewhere = self.stage != other.stage and peer_of(self.peer) != peer_of(other.peer)
        return is_elsewhere and abs(self.at - other.at) <= AT_ONCE_S


@dataclass(slots=True)
class Row:
    """Replicas of a stage that were lost one after the other."""

    reached: tuple[int, int]  # the version, and how much of the open steps was ever done
    losses: list[Loss] = field(default_factory=list)

    @property
    def suspects(self) -> frozenset[MicrobatchId]:
        return frozenset.intersection(*(loss.suspects for loss in self.losses))


@dataclass(frozen=True)
class Hopeless:
    """The word on a run that cannot go on, and the microbatches that it is about."""

    reason: str
    microbatches: tuple[MicrobatchId, ...]


class Deaths:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._ended: dict[tuple[MicrobatchId, int], Counter[SeatId]] = {}  # and stage
        self._rows: dict[int, Row] = {}  # by stage; none is empty
        self._newest: list[Loss] = []  # in all stages

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

    def without_a_word(self, member: Member, reason: str, now: float) -> None:
        """Count a member that is lost."""
        if member.state is Membership.SEEN or member.leaving:
            return
        suspects = frozenset(self._run.may_be_computed_by(member))
        done = member.beacon.done if member.beacon is not None else 0
        loss = Loss(member.peer, member.stage, now, reason, suspects, done)
        self._newest = [other for other in self._newest if now - other.at <= AT_ONCE_S]
        self._newest.append(loss)
        self._acquit(lambda other: other.is_beside(loss))
        if member.state is Membership.READY and not any(map(loss.is_beside, self._newest)):
            self._count(loss, member.ready_at)

    def came_back(self, peer: SeatId, beacon: Beacon) -> None:
        """Hear a peer for the first time since it came, or was lost. One that had been killed would
        have done nothing yet."""
        if beacon.done:
            self._acquit(lambda loss: loss.peer == peer and loss.done <= beacon.done)

    def verdict(self, now: float) -> Hopeless | None:
        """Return why the run cannot go on, if it cannot. Ask every so often."""
        at = self._is_at
        self._rows = {stage: row for stage, row in self._rows.items() if at <= row.reached}
        for stage, row in self._rows.items():
            for loss, settles_s in zip(row.losses[SILENT - 1 :], (BACK_S, AT_ONCE_S), strict=False):
                if now - loss.at >= settles_s:
                    return _hopeless(stage, row)
        return None

    @property
    def _is_at(self) -> tuple[int, int]:
        return self._run.version, self._run.books.advanced

    def _count(self, loss: Loss, ready_at: float) -> None:
        """Add a loss to the row that it goes on, or begin another one."""
        at, row = self._is_at, self._rows.get(loss.stage)
        goes_on = row is not None and at[0] == row.reached[0] and at <= row.reached
        if row is None or not goes_on or not row.suspects & loss.suspects:
            self._rows[loss.stage] = Row(at, [loss])
        elif ready_at > row.losses[-1].at and all(loss.peer != one.peer for one in row.losses):
            row.losses.append(loss)  # it was not one of many at once

    def _acquit(self, is_meant: Callable[[Loss], bool]) -> None:
        """Take losses back that were not by a microbatch."""
        for stage, row in list(self._rows.items()):
            row.losses = [loss for loss in row.losses if not is_meant(loss)]
            if not row.losses:
                del self._rows[stage]


def _hopeless(stage: int, row: Row) -> Hopeless:
    named = tuple(sorted(row.suspects))[:MOST_NAMED]
    which = f"microbatch {named[0]}" if len(row.suspects) == 1 else _one_of(named, row.suspects)
    who = f"{len(row.losses)} replicas of stage {stage} were lost one after the other"
    names = f"{', '.join(loss.peer for loss in row.losses)}: {row.losses[-1].reason}"
    return Hopeless(f"{who} while they had {which} to compute ({names})", named)


def _one_of(named: tuple[MicrobatchId, ...], suspects: frozenset[MicrobatchId]) -> str:
    more = f" and {len(suspects) - len(named)} more" if len(suspects) > len(named) else ""
    return f"microbatches {', '.join(map(str, named))}{more}"
