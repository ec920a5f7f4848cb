"""The estimates of a sender: what a microbatch costs at each replica of the next stage.

Rules:
- What is known of a seat stays while it is absent; not the state of its queue.
- A replica that has answered nothing yet is taken at its word of itself, as the trainer passes it
  on; without one it takes as long as the others do.
- While nothing has come of what it was given, its word counts up to four times as fast as theirs.
- What a replica says of its speed is not enough. A sender sees when something comes of what it has
  handed over, and how far apart that is; who says less than half of it is charged that half, or
  what the others say if that is less: where another stage is the slowest, that is what is measured.
  Where there are other senders it may be four times as fast as the others by its own word.
- Of whom nothing comes is charged twice as much each time.
- Where the link is slower than the replica, the link counts.
- No replica is charged more than 64 times what others are: so that it is seen when it recovers.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from swarmrt.ids import SeatId
from swarmrt.scheduler.timing.estimate import Estimate
from swarmrt.scheduler.wiring.median import Median
from swarmrt.scheduler.wiring.transfer import Transfer

EVEN_OUT_S = 2.0  # in which queues come to be equal; longer than news of them take
EVEN_OUT_MICROBATCHES = 8  # and not in fewer of them, if they take long
MOST_LEAN = 0.5  # of a charge: all replicas go on getting work, and are heard of
TIMES_AS_FAST = 4  # as the others a replica may be, by its own word, beside other senders
MOST_MISSED = 6  # doublings of a charge: one in 64 shows that it works again
MOST_S = 1e6  # that a replica may say: sums of greater ones lose the small ones
UNKNOWN_S = 1.0  # of a microbatch, while nobody has said how long it takes
MOST_KEPT = 1024  # absent seats that are remembered


@dataclass(slots=True)
class Known:
    """The facts that this sender has learned of one seat."""

    service: Estimate = field(default_factory=Estimate)  # by its answers
    transfer: Transfer = field(default_factory=Transfer)
    backlog_s: float | None = None  # by its last answer
    measured: Estimate = field(default_factory=Estimate)  # between signs of its work
    sign_at: float = 0.0  # the newest
    missed: int = 0  # microbatches of which nothing came, less those of which something did


NOTHING = Known()  # of those of whom nothing was learned


class Estimates:
    """The seats of one stage, as one sender knows them. A question is answered in O(log n)."""

    def __init__(self, *, is_only_sender: bool = True) -> None:
        """Begin with nothing known. A sender that is one of several sees only a part of what the
        replicas do."""
        self.frame_bytes = 0  # of what this sender pushes
        self._believed = 1 if is_only_sender else TIMES_AS_FAST
        self._known: dict[SeatId, Known] = {}
        self._prior_s: dict[SeatId, float] = {}  # by their own word, before they answer this sender
        self._absent: OrderedDict[SeatId, Known] = OrderedDict()
        self._said = Median()  # by those that are present
        self._backlogs = 0  # seats whose backlog is known
        self._backlogs_s = 0.0  # their sum

    def __contains__(self, seat: SeatId) -> bool:
        return seat in self._known

    # ------------------------------------------------------------------ who is there

    def came(self, seat: SeatId) -> None:
        """A seat that serves the stage is here, perhaps again."""
        if seat not in self._known:
            self._known[seat] = self._absent.pop(seat, NOTHING)
            said_s = self._said_s(seat)
            if said_s:
                self._said.add(said_s)

    def went(self, seat: SeatId) -> None:
        """A seat is gone. What is known of its speed is kept."""
        self.queue_forgotten(seat)
        known, said_s = self._known.get(seat, NOTHING), self._said_s(seat)
        self._known.pop(seat, None)
        if known is not NOTHING:
            known.missed = 0  # it may come again with another process
        if said_s:
            self._said.discard(said_s)
        if known is not NOTHING or seat in self._prior_s:
            self._absent[seat] = known
            if len(self._absent) > MOST_KEPT:
                self._prior_s.pop(self._absent.popitem(last=False)[0], None)

    # ------------------------------------------------------------------ what is learned

    def says_of_itself(self, seat: SeatId, service_s: float) -> None:
        """Take a replica's word of itself, which counts until it has answered this sender."""
        if seat in self._known and 0 < service_s <= MOST_S:
            before_s = self._said_s(seat)
            self._prior_s[seat] = service_s
            self._says_now(before_s, self._said_s(seat))

    def observe(self, seat: SeatId, service_s: float, backlog_s: float | None = None) -> None:
        """The replica says that a microbatch takes it so long, and that so much work waits."""
        known = self._learning(seat)
        if known is not None and 0 < service_s <= MOST_S:
            before_s = known.service.mean_s or self._prior_s.get(seat, 0.0)
            known.service.add(service_s)
            self._says_now(before_s, known.service.mean_s)
            is_backlog = backlog_s is not None and 0 <= backlog_s <= MOST_S
            self._set_backlog(known, backlog_s if is_backlog else None)

    def came_back(self, seat: SeatId, pushed_at: float, now: float) -> None:
        """Take the first sign of a microbatch since it was handed to the replica."""
        known = self._learning(seat)
        if known is None:
            return
        known.measured.add(max(0.0, now - max(pushed_at, known.sign_at)))
        known.sign_at = now
        known.missed = max(0, known.missed - 1)

    def never_came(self, seat: SeatId) -> None:
        """Take note that a microbatch which was handed to the replica is long overdue."""
        known = self._learning(seat)
        if known is not None:
            known.missed = min(known.missed + 1, MOST_MISSED)

    def answered(self, seat: SeatId, frame_bytes: int, pushed_at: float, now: float) -> None:
        """Take the first answer to a frame: it has come through the link."""
        known = self._learning(seat)
        if known is not None:
            self.frame_bytes = frame_bytes
            known.transfer.answered(frame_bytes, pushed_at, now)

    def unanswered(self, seat: SeatId, frame_bytes: int, waited_s: float) -> None:
        """Take note that a frame was not answered in its time. It may just be lost: the replica is
        charged for what was waited for, but no more than twice what it was."""
        known = self._learning(seat)
        if known is not None:
            self.frame_bytes = frame_bytes
            known.transfer.takes(frame_bytes, min(waited_s, 2 * self.expected_s(seat)))

    def queue_forgotten(self, seat: SeatId) -> None:
        """Forget the state of a queue of which there is no more news."""
        known = self._known.get(seat, NOTHING)
        if known.backlog_s is not None:
            self._set_backlog(known, None)

    # ------------------------------------------------------------------ what follows

    def cost_s(self, seat: SeatId) -> float:
        """Return what one more microbatch costs: expected seconds, more of them where its queue is
        longer than the others', and fewer where it is shorter. Estimates are some percent off, and
        shares that are would lengthen one queue until another replica has nothing to do."""
        expected_s, known = self.expected_s(seat), self._known[seat]
        if known.backlog_s is None:
            return expected_s
        return expected_s * (1 + self._lean(known.backlog_s, expected_s))

    def expected_s(self, seat: SeatId) -> float:
        """Return the expected seconds of one microbatch; an unproven replica's are the median of
        the others."""
        known = self._known[seat]
        own_s = said_s = known.service.mean_s or self._prior_s.get(seat, 0.0)
        if not said_s:
            return self.usual_s(UNKNOWN_S) * (1 << known.missed)
        if not known.measured.samples:
            said_s = max(said_s, self._said.without(said_s, 0.0) / TIMES_AS_FAST)
        least_s = known.measured.mean_s / 2
        if said_s < least_s:
            usual_s = self._said.without(own_s, math.inf)
            said_s = max(said_s, min(least_s, usual_s / self._believed))
        if known.missed:  # what it has said so far is worth nothing
            said_s = max(said_s, self._said.without(own_s, said_s))
        charged_s = said_s * (1 << known.missed)
        link_s = known.transfer.s_per_byte.mean_s * self.frame_bytes
        if link_s <= charged_s:
            return charged_s
        most_s = max(said_s, self.usual_s()) * (1 << MOST_MISSED)
        return max(charged_s, min(link_s, most_s))

    def usual_s(self, unknown_s: float = 0.0) -> float:
        """Return the median of what replicas say that a microbatch takes."""
        return self._said.of_all(unknown_s)

    def backlog_s(self, seat: SeatId) -> float | None:
        """Return the seconds of work that waited at it, by its last answer; None if not known."""
        return self._known[seat].backlog_s

    def _lean(self, backlog_s: float, expected_s: float) -> float:
        """Return what it is charged more or less, as a share, for its queue to come to the mean."""
        even_out_s = max(EVEN_OUT_S, EVEN_OUT_MICROBATCHES * expected_s)
        lean = (backlog_s - self._backlogs_s / self._backlogs) / even_out_s
        return min(MOST_LEAN, max(-MOST_LEAN, lean))

    def _said_s(self, seat: SeatId) -> float:
        """Return how long a microbatch takes by a seat's own word; 0 when it has given none."""
        known = self._known.get(seat, NOTHING)
        return known.service.mean_s or self._prior_s.get(seat, 0.0)

    def _learning(self, seat: SeatId) -> Known | None:
        """Return what is known of a seat that is here, to be added to."""
        known = self._known.get(seat)
        if known is NOTHING:
            known = self._known[seat] = Known()
        return known

    def _says_now(self, before_s: float, said_s: float) -> None:
        if said_s != before_s:
            if before_s:
                self._said.discard(before_s)
            self._said.add(said_s)

    def _set_backlog(self, known: Known, backlog_s: float | None) -> None:
        if known.backlog_s is not None:
            self._backlogs -= 1
            self._backlogs_s -= known.backlog_s
        if backlog_s is not None:
            self._backlogs += 1
            self._backlogs_s += backlog_s
        known.backlog_s = backlog_s
