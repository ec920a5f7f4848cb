"""The trainer's side of forward: which microbatches are on their way, and to whom they were given.

A flight begins with its first dispatch and ends when it is finished, whatever attempts it takes.
A microbatch goes again when its replica refused it, was lost, or is late with its claim.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from swarmrt.ids import MicrobatchId, SeatId, Work
from swarmrt.messages import Accepted, Forward
from swarmrt.scheduler.instructions import Batch, Send
from swarmrt.scheduler.timing.agenda import Agenda
from swarmrt.scheduler.timing.estimate import Estimate
from swarmrt.scheduler.timing.times import CLAIM_S, REWIRE_S
from swarmrt.scheduler.trainer.work.entrances import Entrances
from swarmrt.scheduler.trainer.work.window import Window
from swarmrt.scheduler.wiring.policy import BUILT_IN

SLACK = 3  # another attempt is dear, and whoever is dead is found out sooner otherwise
IN_VAIN = 2  # attempts that were late, before somebody keeps what he is given


Late = tuple[str, MicrobatchId | None]  # what is overdue
WAKE: Late = ("rewire", None)  # replicas may take work again


@dataclass(slots=True)
class Flight:
    attempt: int
    peer: SeatId  # of stage 0, that the newest attempt was given to
    sent_at: float
    began_at: float
    asked: int = 0  # times again, for an answer to the newest attempt
    asked_at: float = 0.0
    accepted: bool = False  # the newest attempt is
    claim_s: float = CLAIM_S  # in which a claim of its newest attempt was expected
    due_at: float = math.inf  # when its newest attempt is late
    claimed: bool = False  # the newest attempt has come to its end
    retries: int = 0


class Dispatch:
    def __init__(self, seed: int, policy: str = BUILT_IN, window: Window | None = None) -> None:
        self.wiring = Entrances(seed, policy)
        self._pending: OrderedDict[MicrobatchId, None] = OrderedDict()  # the first goes next
        self._flights: dict[MicrobatchId, Flight] = {}
        self._attempts: dict[MicrobatchId, int] = {}  # of the open steps
        self.window = window or Window()
        self._claim_time = Estimate()

    @property
    def is_idle(self) -> bool:
        return not self._pending and not self._flights

    def open(self, microbatches: Iterable[MicrobatchId]) -> None:
        """Add microbatches, to be sent as the window allows, after those that there are."""
        self._pending.update(dict.fromkeys(microbatches))

    def drop(self, step: int, *, but_held_out: bool = False) -> None:
        """Drop whatever is left of a step, or all of it that is trained on."""

        def stays(microbatch: MicrobatchId) -> bool:
            return microbatch.commits_in != step or (but_held_out and microbatch.held_out)

        self._pending = OrderedDict((mb, None) for mb in self._pending if stays(mb))
        for microbatch in [mb for mb in self._flights if not stays(mb)]:
            del self._flights[microbatch]
            self.wiring.over(microbatch)
        self._attempts = {mb: number for mb, number in self._attempts.items() if stays(mb)}

    def clear(self) -> None:
        self._pending.clear()
        self._flights.clear()
        self._attempts.clear()
        self.wiring.clear()

    def fill(self, epoch: int, overdue: Agenda[Late], now: float, work_s: float) -> list[Send]:
        """Send while the window has room. The work of a step takes about `work_s`."""
        sends: list[Send] = []
        while self.has_room:
            microbatch = next(iter(self._pending))
            peer = self.wiring.choose(now, microbatch)
            if peer is None:
                if len(self.wiring) and WAKE not in overdue:
                    overdue.set(WAKE, now + REWIRE_S)
                return sends
            del self._pending[microbatch]
            flight = self._send(microbatch, peer, now)
            flight.claim_s = max(self._claim_time.patience_s(CLAIM_S, flight.retries), work_s)
            flight.due_at = now + SLACK * flight.claim_s
            overdue.set(("flight", microbatch), flight.due_at)
            sends.append(_forward(microbatch, flight, epoch))
        return sends

    @property
    def has_room(self) -> bool:
        """Return whether there is room for the one that goes next. Only first attempts wait: what
        fills the window may be behind later ones."""
        if not self._pending:
            return False
        return len(self._flights) < self.window.size or next(iter(self._pending)) in self._attempts

    def _send(self, microbatch: MicrobatchId, peer: SeatId, now: float) -> Flight:
        attempt = self._attempts[microbatch] = self._attempts.get(microbatch, 0) + 1
        flight = self._flights.setdefault(microbatch, Flight(attempt, peer, now, now))
        flight.attempt, flight.peer, flight.sent_at, flight.claimed = attempt, peer, now, False
        flight.asked, flight.asked_at, flight.accepted = 0, now, False
        return flight

    def accepted(self, peer: SeatId, message: Accepted) -> None:
        """A replica of stage 0 has taken a microbatch."""
        self.wiring.estimates.observe(peer, message.service_s, message.backlog_s)
        flight = self._flights.get(message.work.microbatch)
        if flight is not None and (flight.attempt, flight.peer) == (message.work.attempt, peer):
            flight.accepted = True

    def unanswered(self, peer: SeatId, epoch: int, beats: Estimate, now: float) -> list[Send]:
        """Send again, for it may be lost, what a replica has not answered that is heard meanwhile:
        ever less often, as its beacons come."""
        sends: list[Send] = []
        for microbatch, flight in self._flights.items():
            if flight.peer != peer or flight.accepted or flight.claimed:
                continue
            if now - flight.asked_at > beats.patience_s(CLAIM_S, flight.asked):
                flight.asked, flight.asked_at = flight.asked + 1, now
                sends.append(_forward(microbatch, flight, epoch))
        return sends

    def again(self, microbatch: MicrobatchId) -> bool:
        """Ask for one more attempt, unless one is on its way. Returns whether there will be one."""
        flight = self._flights.get(microbatch)
        if microbatch in self._pending or (flight is not None and not flight.claimed):
            return False
        self._goes_next(microbatch)
        return True

    def is_newest(self, work: Work, sent_before: float = math.inf) -> bool:
        """Return whether this is the newest attempt of its microbatch, sent before that time."""
        flight = self._flights.get(work.microbatch)
        if flight is None or flight.attempt != work.attempt:
            return False
        return flight.sent_at < sent_before

    def goes_again(self, microbatch: MicrobatchId) -> None:
        """Queue it again: its newest attempt has come to an end that does not count."""
        flight = self._flights.get(microbatch)
        if flight is not None and not flight.claimed and microbatch not in self._pending:
            self._goes_next(microbatch)

    def refused(self, peer: SeatId, work: Work, until: float) -> None:
        """A replica of stage 0 did not take a microbatch: it goes elsewhere."""
        self.wiring.block(peer, until)
        flight = self._flights.get(work.microbatch)
        if flight is None:
            return
        is_newest = (flight.attempt, flight.peer) == (work.attempt, peer)
        if is_newest and not flight.claimed and work.microbatch not in self._pending:
            self._goes_next(work.microbatch)

    def lost(self, peer: SeatId) -> None:
        """Give to others what it had been given and nobody has claimed."""
        self.wiring.remove(peer)
        self.window.remove(peer)
        for microbatch, flight in self._flights.items():
            if flight.peer == peer and not flight.claimed and microbatch not in self._pending:
                self._goes_next(microbatch)

    def was_sent(self, work: Work) -> bool:
        """Return whether there is such an attempt, of a step that is open."""
        return 1 <= work.attempt <= self._attempts.get(work.microbatch, 0)

    def under_way(self) -> list[MicrobatchId]:
        """Return what was sent and is not finished."""
        return list(self._flights)

    def began_at(self, microbatch: MicrobatchId) -> float:
        """Return when a flight's first attempt was sent."""
        return self._flights[microbatch].began_at

    def oldest_began_at(self) -> float | None:
        """Return when the first of the flights began that wait for a claim."""
        waiting = (flight.began_at for flight in self._flights.values() if not flight.claimed)
        return min(waiting, default=None)

    def is_in_vain(self, microbatch: MicrobatchId) -> bool:
        """Return whether attempt after attempt of a flight was late."""
        return self._flights[microbatch].retries >= IN_VAIN

    def hasten(self, overdue: Agenda[Late], now: float) -> None:
        """Wait no longer than claims take, as some have gone with who is lost, and nobody says so;
        they have been on their way, and need not wait for the work of a step before theirs."""
        due_at = now + SLACK * self._claim_time.patience_s(CLAIM_S)
        for microbatch, flight in self._flights.items():
            if not flight.claimed and microbatch not in self._pending and due_at < flight.due_at:
                flight.due_at = due_at
                overdue.set(("flight", microbatch), due_at)

    def wait_longer(self, microbatch: MicrobatchId, passage_s: float) -> None:
        """Wait for a flight as long as claims take by what is known now, if that is more than when
        it was sent. Before any has come, `passage_s` says what replicas make expect."""
        flight = self._flights.get(microbatch)
        if flight is not None:
            known_s = self._claim_time.patience_s(max(CLAIM_S, passage_s), flight.retries)
            flight.claim_s = max(flight.claim_s, known_s)
            flight.due_at = max(flight.due_at, flight.sent_at + SLACK * known_s)

    def due_at(self, microbatch: MicrobatchId, delay_s: float) -> float:
        """Return when its newest attempt is late, as words come later by `delay_s`."""
        flight = self._flights.get(microbatch)
        return flight.due_at + SLACK * delay_s if flight is not None else -math.inf

    def last_due_at(self) -> float:
        """Return when the last of the flights that wait for a claim is late."""
        waiting = (flight.due_at for flight in self._flights.values() if not flight.claimed)
        return max((due_at for due_at in waiting if due_at < math.inf), default=-math.inf)

    def is_late(self, microbatch: MicrobatchId) -> bool:
        """Return whether its newest attempt is overdue: another one goes, unless it waits to go
        anyway."""
        flight = self._flights.get(microbatch)
        if flight is None or flight.claimed or microbatch in self._pending:
            return False
        flight.retries += 1
        self.wiring.estimates.never_came(flight.peer)
        self._goes_next(microbatch)
        return True

    def claimed(self, work: Work, first: SeatId, now: float, since: float) -> None:
        """An attempt has come to its end, by way of that replica of stage 0. How long one takes is
        learned from those that were sent since then: others waited for their version. A first one
        that was late, and comes after all, shows that too little was expected."""
        microbatch = work.microbatch
        flight = self._flights.get(microbatch)
        if flight is None or flight.claimed:
            return
        if flight.peer == first:
            self.wiring.estimates.came_back(first, flight.sent_at, now)
        if work.attempt == 1 and (flight.retries or flight.began_at >= since):
            self._claim_time.add_answer(now - flight.began_at, flight.claim_s)
        flight.claimed = True
        self._pending.pop(microbatch, None)

    def landed(self, microbatch: MicrobatchId, now: float) -> None:
        """End a flight, which is finished."""
        flight = self._flights.get(microbatch)
        if flight is not None:
            if not flight.claimed:  # a held-out one ends without a claim
                self.wiring.estimates.came_back(flight.peer, flight.sent_at, now)
            self.window.landed(len(self._flights), more=bool(self._pending))
            del self._flights[microbatch]
            self.wiring.over(microbatch)
        self._pending.pop(microbatch, None)

    def _goes_next(self, microbatch: MicrobatchId) -> None:
        """Send it again before others. Whoever has it, and no room, will say so."""
        self.wiring.over(microbatch)
        self._pending[microbatch] = None
        self._pending.move_to_end(microbatch, last=False)

    def validate(self) -> None:
        self.wiring.validate()
        begun = [microbatch in self._attempts for microbatch in self._pending]
        assert begun == sorted(begun, reverse=True), "one that was begun waits behind a new one"


def _forward(microbatch: MicrobatchId, flight: Flight, epoch: int) -> Send:
    """Return the word of a flight's newest attempt."""
    forward = Forward(Work(microbatch, flight.attempt), epoch, ())
    return Send(flight.peer, forward, Batch(microbatch))
