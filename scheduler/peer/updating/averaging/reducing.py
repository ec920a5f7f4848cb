"""The all-reduces of a seat whose replica makes optimizer steps of its own between two versions.

What is reduced is how far its weights have moved in the step. They go on moving while the reduce is
under way, for the step after; so what a replica contributes is fixed before its round begins. Until
then parts of others are kept as those are that come before their Prepare.
"""

from __future__ import annotations

from swarmrt.ids import SeatId
from swarmrt.messages import Prepare
from swarmrt.scheduler.events import Contributed
from swarmrt.scheduler.instructions import Contribute, DropRound, Instruction
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.sync.reducing import Reducing


class ContributingRounds(Reducing):
    def __init__(self, seat: Seat) -> None:
        settings = seat.settings
        super().__init__(seat.me, settings.gradient_bytes, settings.update_bytes, seat.store)
        self._local_from = settings.local_from
        self.step_size = settings.microbatches  # of the last step of own ones that was announced
        self._waiting: dict[int, Prepare] = {}  # by step: its contribution is not fixed yet

    def begin(self, prepare: Prepare) -> list[Instruction]:
        """Have this replica's contribution fixed first, if it has one."""
        if prepare.step >= self._local_from and not prepare.skip:
            self.step_size = prepare.tokens
        waiting = self._waiting.get(prepare.step)
        if waiting is not None and prepare.round <= waiting.round:
            return []
        earlier = self.round(prepare.step)
        if earlier is not None and prepare.round <= earlier.prepare.round:
            return []
        if not self._contributes(prepare):
            self._waiting.pop(prepare.step, None)
            return super().begin(prepare)
        void = self.void(prepare.step)
        self._waiting[prepare.step] = prepare
        return [*void, Contribute(prepare.step, prepare.round)]

    def _contributes(self, prepare: Prepare) -> bool:
        """Return whether this replica gives a round what its own steps have moved."""
        is_local = prepare.step >= self._local_from
        return is_local and bool(dict(prepare.roster).get(self._me))

    def contributed(self, event: Contributed) -> list[Instruction]:
        """Begin the round, unless it is void by now."""
        prepare = self._waiting.get(event.step)
        if prepare is None or prepare.round != event.round:
            return [DropRound(event.step, event.round)]
        del self._waiting[event.step]
        return super().begin(prepare)

    def void(self, step: int) -> list[Instruction]:
        waiting = self._waiting.pop(step, None)
        early = [] if waiting is None else self._void_early(step, waiting.round + 1)
        return [*super().void(step), *early]

    def waits_for(self, version: int) -> SeatId:
        return self._me if version in self._waiting else super().waits_for(version)

    def stepped(self, version: int) -> list[Instruction]:
        self._waiting = {step: p for step, p in self._waiting.items() if step >= version}
        return super().stepped(version)

    def clear(self, *, but_prepared: int | None = None) -> list[Instruction]:
        self._waiting.clear()
        return super().clear(but_prepared=but_prepared)

    def validate(self) -> None:
        super().validate()
        assert len(self._waiting) <= 1, self._waiting
        assert not self._waiting.keys() & self._rounds.keys()
