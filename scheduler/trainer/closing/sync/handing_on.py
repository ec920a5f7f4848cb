"""The holding of Apply, while a version would be at a single place.

Rules:
- Where a stage has one member, and somebody follows it from version to version, Apply is held until
  that one has what it makes the next version of as well. Else the version would be lost with the
  member, if that died just then.
- It is held for twice as long as that takes over their links, if a member could be as slow, and for
  half a step at the most. For whom it was held in vain, it is not held for more and more versions.
- A stage with two members, or with nobody who follows, holds nobody up.
"""

from __future__ import annotations

from swarmrt.ids import SeatId
from swarmrt.scheduler.trainer.closing import worth
from swarmrt.scheduler.trainer.closing.sync.prepare_round import PrepareRound
from swarmrt.scheduler.trainer.closing.sync.voiding import stop_waiting
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run

TIMES = 2  # as long as it should take: what is waited for also adds up, and says so
MOST_DOUBLINGS = 6


class HandingOn:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._in_vain: dict[SeatId, tuple[int, int]] = {}  # how often, and the version to try at

    def hold(self, round_: PrepareRound, now: float) -> bool:
        """Hold the Apply of a round in which all is prepared. Returns False if there is no need."""
        held_s = max((self._hold_s(round_, m) for m in self._awaited(round_)), default=0.0)
        if not held_s:
            return False
        stop_waiting(self._run)
        round_.held_at = now
        self._run.agenda.set(("hand on", None), now + held_s)
        return True

    def is_over(self, round_: PrepareRound) -> bool:
        """Return whether Apply is held, and need not be any more."""
        return round_.held_at is not None and not self._awaited(round_)

    def let_go(self, round_: PrepareRound, now: float) -> None:
        """Hold it no more, and learn from that."""
        assert round_.held_at is not None
        round_.held_s, round_.held_at = now - round_.held_at, None
        for member in self._awaited(round_):
            times, _ = self._in_vain.get(member.peer, (0, 0))
            again_at = self._run.version + 2 ** min(times + 1, MOST_DOUBLINGS)
            self._in_vain[member.peer] = times + 1, again_at
        here = {member.peer for member in self._run.members}
        self._in_vain = {
            peer: vain
            for peer, vain in self._in_vain.items()
            if peer in here and peer not in round_.handed_on
        }

    def _awaited(self, round_: PrepareRound) -> list[Member]:
        """Return who would be the second to have a version that nobody else but one has."""
        return [
            member
            for roster, listeners in zip(round_.rosters, round_.listeners, strict=True)
            if len(roster) == 1 and not round_.skip and round_.handed_on.isdisjoint(listeners)
            for peer in listeners
            if (member := self._run.members.get(peer)) is not None and self._follows(member)
        ]

    def _follows(self, member: Member) -> bool:
        run = self._run
        is_near = member.state is Membership.ADMITTED and member.named_weights[0] == run.version
        _, again_at = self._in_vain.get(member.peer, (0, 0))
        return is_near and not member.suspect and run.version >= again_at

    def _hold_s(self, round_: PrepareRound, follower: Member) -> float:
        """Return how long Apply may be held for it; 0 if what it lacks takes longer than that."""
        run, stage = self._run, follower.stage
        most_s = (worth.SLACK - 1) * run.pace.step_time.mean_s
        (lone, _), *_ = round_.rosters[stage]
        member, listeners = run.members.get(lone), round_.listeners[stage]
        giving_s = worth.following_s(run, member) * len(listeners) if member is not None else 0.0
        takes_s = TIMES * max(giving_s, worth.following_s(run, follower))
        if not takes_s:
            return most_s  # links are so fast that nobody has measured them
        return takes_s if takes_s <= most_s else 0.0
