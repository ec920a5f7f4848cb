"""The versions of a seat whose replicas commit together.

Rules:
- A step runs on the version that it updates, or on the one before, by the staleness. The first ones
  may be fresh while later ones are not.
- What comes of a step counts until its version is made, or it is skipped.
- A gradient that is added voids the round that reduces its step.
"""

from __future__ import annotations

from swarmrt.ids import MicrobatchId, SeatId
from swarmrt.scheduler.instructions import Instruction
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.strategy import Versions
from swarmrt.scheduler.peer.updating.sync.reducing import Reducing
from swarmrt.scheduler.peer.work.task import Status
from swarmrt.scheduler.peer.work.tasks import Tasks


class SyncVersions(Versions):
    def __init__(self, seat: Seat, reducing: Reducing | None = None) -> None:
        super().__init__()
        settings = seat.settings
        sizes = (settings.gradient_bytes, settings.update_bytes)
        self.reducing = reducing or Reducing(seat.me, *sizes, seat.store)
        self.skipping = -1  # the step of which nothing is to be computed any more
        self._seat, self._staleness = seat, settings.staleness
        self._fresh_steps = settings.fresh_steps

    # ------------------------------------------------------------------ which weights

    @property
    def newest(self) -> int:
        return self._seat.version

    def runs_on(self, microbatch: MicrobatchId) -> int:
        is_fresh = microbatch.commits_in < self._fresh_steps
        return microbatch.runs_on(0 if is_fresh else self._staleness)

    def is_too_early(self, microbatch: MicrobatchId) -> bool:
        """Return whether it needs more than the next version."""
        return self.runs_on(microbatch) > self._seat.version + 1

    def is_over(self, microbatch: MicrobatchId) -> bool:
        """Return whether its step is in a version, or is skipped."""
        return microbatch.commits_in < self._seat.version or self.skips(microbatch)

    def skips(self, microbatch: MicrobatchId) -> bool:
        """Return whether it is of a step that is skipped."""
        return microbatch.commits_in == self.skipping and not microbatch.held_out

    # ------------------------------------------------------------------ what becomes of a gradient

    def is_due_before(self, microbatch: MicrobatchId, other: MicrobatchId) -> bool:
        """Return whether it holds up the commit of an earlier step."""
        return microbatch.commits_in < other.commits_in

    def owned_anew(self, microbatch: MicrobatchId) -> list[Instruction]:
        return self.reducing.void(microbatch.commits_in)

    def added(self, microbatch: MicrobatchId) -> list[Instruction]:
        return self.reducing.void(microbatch.commits_in)

    # ------------------------------------------------------------------ what is lost

    def void(self) -> list[Instruction]:
        """Void all of this step but a gradient that is whole, and that others may apply."""
        self.skipping = -1
        return self.reducing.clear(but_prepared=self._seat.version)

    def clear(self) -> list[Instruction]:
        return self.reducing.clear()

    # ------------------------------------------------------------------ what is said of it

    @property
    def prepared(self) -> int:
        return self.reducing.prepared(self._seat.version)

    @property
    def waits_for(self) -> SeatId:
        return self.reducing.waits_for(self._seat.version)

    @property
    def awaited(self) -> int | None:
        return self.reducing.awaited()

    def validate(self, tasks: Tasks) -> None:
        """Check that rounds are bounded, and that tasks and record are of steps that are open."""
        self.reducing.validate()
        version, newest = self._seat.version, self._seat.version + self._staleness
        for task in tasks:
            step = task.microbatch.commits_in
            assert version <= step <= newest + 1, (version, task)
            assert step <= newest or task.backward is Status.AWAITED
        for microbatch in self.accumulators.record:
            assert version <= microbatch.commits_in <= newest, microbatch
