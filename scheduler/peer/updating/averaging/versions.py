"""The versions of a seat whose replica makes optimizer steps of its own between two of them."""

from __future__ import annotations

from swarmrt.ids import MicrobatchId
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.averaging.own_steps import Between, own_step
from swarmrt.scheduler.peer.updating.averaging.reducing import ContributingRounds
from swarmrt.scheduler.peer.updating.sync.versions import SyncVersions


class AveragedVersions(SyncVersions):
    def __init__(self, seat: Seat, rounds: ContributingRounds) -> None:
        super().__init__(seat, rounds)
        self._settings, self._rounds, self._between = seat.settings, rounds, Between()

    def own_step(self, microbatch: MicrobatchId, between: int) -> int:
        settings, step = self._settings, microbatch.commits_in
        if step < settings.local_from or not settings.local_batch:
            return 0
        indices = self.accumulators.indices(step) | {microbatch.index}
        passed, added = max(indices) + 1, len(indices)
        how = (settings.local_batch, settings.most_late)
        reckoned = self._between.seen(between)
        return own_step(*how, reckoned, added, passed, self._rounds.step_size)
