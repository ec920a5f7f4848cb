"""A seat's updates where replicas make steps of their own, and versions average what they moved.

A version is an anchor: weights on which all replicas of a stage agree. It is prepared and applied
as where they commit together, and nobody waits for it: what is being computed goes on.
"""

from __future__ import annotations

from swarmrt.scheduler.events import Contributed
from swarmrt.scheduler.instructions import Instruction
from swarmrt.scheduler.peer.membership.terms import Terms
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.averaging.reducing import ContributingRounds
from swarmrt.scheduler.peer.updating.strategy import Outcome
from swarmrt.scheduler.peer.updating.sync.sync import Sync
from swarmrt.scheduler.peer.updating.sync.versions import SyncVersions
from swarmrt.scheduler.peer.work.computing import Computing
from swarmrt.scheduler.peer.work.outputs import Outputs


class Averaging(Sync):
    def __init__(
        self,
        seat: Seat,
        versions: SyncVersions,
        rounds: ContributingRounds,
        computing: Computing,
        outputs: Outputs,
        terms: Terms,
    ) -> None:
        super().__init__(seat, versions, computing, outputs, terms)
        self._rounds = rounds

    def happened(self, outcome: Outcome, now: float) -> list[Instruction]:
        if isinstance(outcome, Contributed):
            return [*self._rounds.contributed(outcome), *self.go_on()]
        return super().happened(outcome, now)
