"""The pausing of a seat by the owner of its machine, who wants the device back.

Rules:
- What is being computed ends, and is void with all else that this seat has of a step: others do it.
- An update that has begun ends first: its version may be nowhere else yet.
- Asked to go gently, it goes once the next version is made, when next to nothing is lost.
- While it is paused it keeps its state and is heard, but takes no work and is not admitted.
"""

from __future__ import annotations

from swarmrt.scheduler.events import PauseRequested
from swarmrt.scheduler.instructions import FreeDevice, Instruction
from swarmrt.scheduler.peer.membership.beacons import Beacons
from swarmrt.scheduler.peer.membership.leaving import Leaving
from swarmrt.scheduler.peer.membership.loading import Loading
from swarmrt.scheduler.peer.membership.terms import Terms
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.work.queue import ComputeQueue


class Pausing:
    def __init__(
        self,
        seat: Seat,
        queue: ComputeQueue,
        leaving: Leaving,
        beacons: Beacons,
        terms: Terms,
        loading: Loading,
    ) -> None:
        self._seat, self._queue, self._leaving = seat, queue, leaving
        self._beacons, self._terms, self._loading = beacons, terms, loading
        self._is_due = False  # once the next version is made
        self._is_free = False  # the device is given back

    def requested(self, event: PauseRequested) -> list[Instruction]:
        """Pause now, or once the next version is made. Whoever is leaving leaves at once."""
        seat = self._seat
        if seat.is_paused:
            return []
        if self._leaving.is_wanted:
            return self._leaving.stop("its owner wants the device back")
        if seat.is_stepping or (event.gently and seat.is_serving):
            self._is_due = True
            return []
        return self._pause()

    def stepped(self) -> list[Instruction]:
        """Pause if that was put off until a version is made."""
        return self._pause() if self._is_due else []

    def _pause(self) -> list[Instruction]:
        self._seat.is_paused, self._is_due, self._is_free = True, False, False
        return [*self._loading.stop(), *self._terms.begin_anew()]

    def resumed(self) -> list[Instruction]:
        """Show the trainer what is held, for it to admit this seat again."""
        self._is_due = False
        if not self._seat.is_paused:
            return []
        self._seat.is_paused = False
        return [self._beacons.beacon()]

    def settle(self) -> list[Instruction]:
        """Give the device back once nothing is under way on it."""
        seat = self._seat
        if not seat.is_paused or self._is_free or self._queue.num_started or seat.is_stepping:
            return []
        self._is_free = True
        return [FreeDevice()]
