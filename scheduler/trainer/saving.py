"""The trainer's side of checkpoints: which version is saved, and which is being saved."""

from __future__ import annotations

from swarmrt.ids import SeatId
from swarmrt.scheduler.instructions import SaveCheckpoint, StartDeadline
from swarmrt.scheduler.timing.times import SAVE_S

SNAPSHOTS_BESIDE = 1  # one that is collected: replicas keep two, and the oldest goes first


class Saving:
    """The saving of checkpoints, one at a time."""

    def __init__(self, version: int, digests: tuple[str, ...]) -> None:
        self.version = version  # of the newest that is whole
        self.digests = digests  # of its parameters, by stage
        self.offered = version or None  # the version that newcomers can get from the trainer
        self.under_way: int | None = None
        self.snapshots = 0  # that replicas were asked to keep since it is under way
        self.failures = 0  # since the last that went well
        self.rests = False  # until the next try
        self._digests_under_way = digests

    def begin(
        self,
        version: int,
        epoch: int,
        donors: tuple[tuple[SeatId, ...], ...],
        digests: tuple[str, ...],
    ) -> SaveCheckpoint:
        self.under_way, self._digests_under_way = version, digests
        self.snapshots = 0
        return SaveCheckpoint(version, epoch, donors, digests)

    @property
    def leaves_room(self) -> bool:
        """Return whether replicas can keep another snapshot, beside the one that is collected."""
        return self.under_way is None or self.snapshots < SNAPSHOTS_BESIDE

    def done(self, version: int) -> None:
        if self.under_way == version:
            self.version, self.digests = version, self._digests_under_way
            self.under_way, self.failures = None, 0

    def failed(self, version: int, now: float) -> StartDeadline | None:
        """Return the deadline of the next try; None if it is not this one that was waited for."""
        if self.under_way != version:
            return None
        self.under_way, self.rests = None, True
        self.failures += 1
        return StartDeadline("save", now + SAVE_S * self.failures)
