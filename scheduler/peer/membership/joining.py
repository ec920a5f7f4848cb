"""The joining of a seat: whatever the trainer says of its epoch and term.

Rules:
- Work is taken only in the epoch and term in which it was admitted.
- A hail is of a new incarnation: the work of the earlier one is void.
- What comes while the optimizer runs is done once that is over; the last word counts.
"""

from __future__ import annotations

from swarmrt.messages import Admit, Hail, LeftOut
from swarmrt.scheduler.events import Started
from swarmrt.scheduler.instructions import Announce, Instruction, ReportLeftOut, Stop
from swarmrt.scheduler.peer.host import Host
from swarmrt.scheduler.peer.membership.beacons import Beacons
from swarmrt.scheduler.peer.membership.leaving import Leaving
from swarmrt.scheduler.peer.membership.loading import Loading
from swarmrt.scheduler.peer.membership.terms import Terms
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.strategy import Versions
from swarmrt.scheduler.peer.work.neighbours import Neighbours


class Joining:
    def __init__(
        self,
        host: Host,
        seat: Seat,
        versions: Versions,
        neighbours: Neighbours,
        leaving: Leaving,
        beacons: Beacons,
        terms: Terms,
        loading: Loading,
    ) -> None:
        self._host, self._seat, self._versions = host, seat, versions
        self._neighbours, self._leaving = neighbours, leaving
        self._beacons, self._terms, self._loading = beacons, terms, loading
        self._put_off: Admit | Hail | LeftOut | None = None  # that came while it was stepping

    def started(self, event: Started) -> list[Instruction]:
        """Announce that it is here, with its state."""
        seat = self._seat
        seat.version, seat.digest = event.version, event.digest
        seat.made_by = (event.applied, event.norm)
        return [Announce("joining", event.version)]

    def hailed(self, message: Hail) -> list[Instruction]:
        """Void the work of an earlier incarnation, and say what is held."""
        seat = self._seat
        if message.epoch < seat.epoch:
            return []
        if seat.is_stepping:
            self._put_off = message
            return []
        void: list[Instruction] = []
        if message.epoch > seat.epoch:
            void = self._terms.void_work()
            self._neighbours.forget()
            seat.epoch, seat.term, seat.state = message.epoch, 0, "joining"
        return [*void, self._beacons.beacon()]

    def admitted(self, message: Admit) -> list[Instruction]:
        """Begin a term, or say again that this one has begun."""
        seat = self._seat
        if (message.epoch, message.term) < (seat.epoch, seat.term):
            return []
        if (message.epoch, message.term) == (seat.epoch, seat.term):
            return [self._terms.ready()] if seat.is_serving else []
        if seat.is_stepping:
            self._put_off = message
            return []
        void = [*self._terms.void_work(), *self._versions.clear()]
        self._neighbours.forget()
        self._leaving.begin_term()
        seat.epoch, seat.term = message.epoch, message.term
        seat.key = bytes.fromhex(message.key)
        return void + self._loading.begin(message)

    def left_out(self, message: LeftOut) -> list[Instruction]:
        """Void the work of this term, tell the owner why, and wait for another admission."""
        seat, link = self._seat, self._host.link
        if seat.is_stepping:
            self._put_off = message
            return []
        figures = (message.takes_s, message.step_s, message.rest_s)
        report = ReportLeftOut(link.gradient_bytes, link.bytes_per_s, message.what, *figures)
        stop = self._loading.stop()
        link.forget()  # by then it may be another
        return [report, *stop, *self._terms.begin_anew()]

    def trainer_lost(self) -> list[Instruction]:
        """Wait until the trainer hails or admits us: without its ledger nothing can be
        committed."""
        seat = self._seat
        if self._leaving.is_wanted:
            return [Stop("the trainer is gone", error=False)]
        if seat.state == "joining" or seat.is_stepping:
            return []
        return self._terms.end()

    def stepped(self, *, is_spoiled: bool) -> list[Instruction]:
        """Do what was put off until the optimizer was done."""
        seat = self._seat
        put_off, self._put_off = self._put_off, None
        if isinstance(put_off, Hail):
            return self.hailed(put_off)
        if isinstance(put_off, Admit):
            return self.admitted(put_off)
        if isinstance(put_off, LeftOut):
            return self.left_out(put_off)
        if not seat.is_serving:
            return [self._beacons.beacon()]
        return self._terms.begin_anew() if is_spoiled else []
