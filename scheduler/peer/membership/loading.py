"""The loading of a seat's state: when it has one, and what is done when it cannot be had.

The trainer sees by a beacon that it could not, and names other donors. When that has not helped, it
is let see it later and later.
"""

from __future__ import annotations

from swarmrt.messages import Admit
from swarmrt.scheduler.events import StateLoaded, StateUnavailable
from swarmrt.scheduler.instructions import Instruction, StartDeadline, StopLoading
from swarmrt.scheduler.peer.membership.beacons import Beacons
from swarmrt.scheduler.peer.membership.terms import Terms
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.strategy import Updating, Versions
from swarmrt.scheduler.timing.times import LOAD_AGAIN_S

MOST_DOUBLINGS = 6  # about half a minute


class Loading:
    def __init__(
        self, seat: Seat, versions: Versions, beacons: Beacons, terms: Terms, updating: Updating
    ) -> None:
        self._seat, self._versions, self._beacons = seat, versions, beacons
        self._terms, self._updating = terms, updating
        self._in_vain = 0  # loads in a row

    def begin(self, message: Admit) -> list[Instruction]:
        """Serve with the state that it is admitted at; load it first, unless it is here."""
        seat = self._seat
        load = self._updating.admitted(message)
        if load is None:
            return self._terms.serve()
        seat.state, seat.load_rests_in = "loading", None
        return [load]

    def stop(self) -> list[Instruction]:
        """Load no more, if that is under way."""
        if self._seat.state != "loading":
            return []
        return [StopLoading(), *self._versions.clear()]

    def loaded(self, event: StateLoaded, now: float) -> list[Instruction]:
        """Serve with the state that is here. If the trainer was lost meanwhile, it is kept for the
        next admission."""
        seat = self._seat
        is_awaited = seat.state == "loading" or (seat.state == "joining" and not seat.digest)
        if not is_awaited or event.version != seat.version:
            return []
        if not self._updating.loaded(event):
            return self._load_failed(now)
        self._in_vain = 0
        if seat.state == "joining":
            return [self._beacons.beacon()]
        return self._terms.serve() + self._updating.go_on()

    def unavailable(self, event: StateUnavailable, now: float) -> list[Instruction]:
        return self._load_failed(now) if event.version == self._seat.version else []

    def _load_failed(self, now: float) -> list[Instruction]:
        """Try again at once the first time, and later and later after that."""
        seat = self._seat
        if seat.state != "loading" or seat.load_rests_in is not None:
            return []
        self._in_vain += 1
        seat.load_rests_in = (seat.epoch, seat.term)
        if self._in_vain == 1:
            return [*self._versions.clear(), *self.again()]
        rest_s = LOAD_AGAIN_S * 2 ** min(self._in_vain - 2, MOST_DOUBLINGS)
        return [*self._versions.clear(), StartDeadline("load", now + rest_s)]

    def again(self) -> list[Instruction]:
        """Show the trainer that this peer needs to be admitted once more."""
        seat, rests_in = self._seat, self._seat.load_rests_in
        seat.load_rests_in = None
        if seat.state != "loading" or rests_in != (seat.epoch, seat.term):
            return []
        seat.state = "joining"
        return [self._beacons.beacon()]
