"""The peers that go without being asked to, or cannot come: what people and the run learn of it.

A peer whose link broke may have been killed by what it computed, and one that ends says why. Where
whoever has its work next would end as well, the run cannot go on (`deaths`).
"""

from __future__ import annotations

from swarmrt.ids import PeerId, SeatId
from swarmrt.messages import Beacon, Ending
from swarmrt.scheduler.instructions import Instruction, ReportUnable
from swarmrt.scheduler.trainer.course.course import RunPhase
from swarmrt.scheduler.trainer.membership.fencing.fencing import Fencing
from swarmrt.scheduler.trainer.membership.members import Member, Membership
from swarmrt.scheduler.trainer.run import Run
from swarmrt.scheduler.trainer.work.deaths import Deaths, Hopeless


class Departures:
    def __init__(self, run: Run, fencing: Fencing) -> None:
        self._run, self._fencing = run, fencing
        self._deaths = Deaths(run)

    def gone(self, peer: PeerId, reason: str, now: float) -> list[Instruction]:
        """Go on without the seats of a process whose link broke."""
        instructions: list[Instruction] = []
        for member in self._run.members.of_process(peer):
            self._deaths.without_a_word(member, reason, now)
            instructions += self._fencing.lost(member.peer, reason, now)
        return instructions

    def heard_first(self, peer: SeatId, beacon: Beacon) -> None:
        """Hear a peer for the first time since it came, or since its link broke."""
        self._deaths.came_back(peer, beacon)

    def look(self, now: float) -> list[Instruction]:
        """Give the run up if whoever computes a microbatch is lost. Look every so often."""
        return self._give_up(self._deaths.verdict(now))

    def ended(self, member: Member, ending: Ending, now: float) -> list[Instruction]:
        """Go on without a peer that says why it ends, unless that would be the end of others
        too."""
        reason = f"it has ended: {ending.reason}"
        told = self.unable(member.peer, member.stage, reason, now)
        if member.state is not Membership.SEEN:
            told = []  # it is told that the run goes on without it
        hopeless = self._deaths.in_computation(member, ending.microbatch, ending.reason)
        return [*told, *self._fencing.lost(member.peer, reason, now), *self._give_up(hopeless)]

    def unable(self, peer: SeatId, stage: int, reason: str, now: float) -> list[Instruction]:
        """Tell people of somebody who would serve, and cannot."""
        run = self._run
        if not 0 <= stage < run.num_stages or run.conduct.is_expelled(peer):
            return []
        if not run.unable.add(peer, stage, reason, now):
            return []
        return [ReportUnable(stage, peer, reason)]

    def _give_up(self, hopeless: Hopeless | None) -> list[Instruction]:
        if hopeless is None or self._run.phase is RunPhase.CLOSING:
            return []
        return [self._run.give_up(hopeless.reason, hopeless.microbatches)]
