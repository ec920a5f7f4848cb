"""The waiting of a peer that serves nothing: what for, and when its owner is told."""

from __future__ import annotations

from swarmrt.scheduler.instructions import Instruction, ReportWaitsFor, WaitsFor
from swarmrt.scheduler.timing.times import SAY_AGAIN_S


class Waiting:
    def __init__(self) -> None:
        self._what: WaitsFor | None = None
        self._since = self._said_at = 0.0

    def look(self, what: WaitsFor | None, now: float) -> list[Instruction]:
        """Take note of what is awaited now, if anything is; report it from time to time."""
        if what != self._what:
            self._what, self._since, self._said_at = what, now, now
        if what is None or now - self._said_at < SAY_AGAIN_S:
            return []
        self._said_at = now
        return [ReportWaitsFor(what, now - self._since)]
