"""The weights of those who say that they are ready, which are equal on all replicas of a stage.

Rules:
- Known weights decide; before any are known, most of those who say that they are ready, or the
  first of them; a spare is not.
- Whoever has others is charged with it.
"""

from __future__ import annotations

from swarmrt.ids import SeatId
from swarmrt.scheduler.trainer.agreeing import odd_ones
from swarmrt.scheduler.trainer.closing.unlike import SOFTWARE, may_be_unlike
from swarmrt.scheduler.trainer.membership.conduct import Kind
from swarmrt.scheduler.trainer.membership.members import Member
from swarmrt.scheduler.trainer.run import Run


class Weights:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._said: dict[int, dict[SeatId, str]] = {}  # stage → who was ready → with which weights
        self._said_of = (-1, -1)  # epoch and version

    def are_those_of_the_others(self, member: Member, digest: str) -> bool:
        """Return whether it has those of the others. Whoever has not is charged with it."""
        run, stage = self._run, member.stage
        known = run.digests[stage]
        words = self._words_of(stage)
        words[member.peer] = digest
        odd = odd_ones(words, self._trust_in_ready, known or None)
        reason = f"its weights of version {run.version} are not those of the other replicas"
        for peer in odd:
            run.charge(peer, f"{reason}: {SOFTWARE}", self._kind_of_charge(peer, known))
        for peer in set(words) - set(odd):
            run.conduct.pardon(peer)
        return member.peer not in odd

    def _words_of(self, stage: int) -> dict[SeatId, str]:
        """Return what those of the stage who are still there have said of this version's
        weights."""
        run = self._run
        if self._said_of != run.current:
            self._said, self._said_of = {}, run.current
        there = {
            peer: digest
            for peer, digest in self._said.get(stage, {}).items()
            if run.members.get(peer) is not None
        }
        self._said[stage] = there
        return there

    def _trust_in_ready(self, peer: SeatId) -> tuple[bool, bool, tuple[int, int, SeatId]]:
        run, member = self._run, self._run.members.get(peer)
        is_ready = any(run.members.is_ready(peer, stage) for stage in range(run.num_stages))
        return not is_ready, member is not None and member.is_spare, run.trust(peer)

    def _kind_of_charge(self, peer: SeatId, known: str) -> Kind:
        """Return the kind of charge. Whoever contradicts a second time what its admission names has
        lied: with a state of other weights it would have said that it has none."""
        member = self._run.members.get(peer)
        if member is not None and may_be_unlike(self._run, member):
            return "unlike"
        if not known or member is None or member.admit is None or member.admit.digest != known:
            return "fault"
        return "lie" if self._run.conduct.contradicts(peer) > 1 else "fault"
