"""How long answers are waited for before they are asked for again."""

from __future__ import annotations

import pytest

from swarmrt.ids import MicrobatchId, Work
from swarmrt.messages import Accepted, Claim, Forward, Granted
from swarmrt.scheduler.events import BackwardDone, DeadlinePassed
from swarmrt.scheduler.timing.agenda import Agenda
from swarmrt.scheduler.timing.estimate import Estimate, Estimates
from swarmrt.scheduler.trainer.work.dispatch import Late
from swarmrt.scheduler.trainer.work.receipts import Receipts
from tests.scheduler.peer_core import ME, UP, A, Peer, mb, sent


class Owners:
    """Of the stages, each with its time to answer. Counts how often they are asked again."""

    def __init__(self, *answer_s: float) -> None:
        self.answer_s = answer_s
        self.asked_again = 0
        self._agenda: Agenda[Late] = Agenda("overdue")
        self._receipts = Receipts(self._agenda)
        self._now = 0.0

    def accumulate(self, microbatch: MicrobatchId) -> None:
        """Every stage's receipt, the last stage's first."""
        for stage in reversed(range(len(self.answer_s))):
            self._receipts.expect(microbatch, stage, ME, self._now)
            self._wait(microbatch, self.answer_s[stage])
            self._receipts.came(microbatch, stage, ME, self._now)
        self._receipts.finished(microbatch)

    def _wait(self, microbatch: MicrobatchId, seconds: float) -> None:
        answered_at = self._now + seconds
        while self._now < answered_at:
            self._now = min(answered_at, self._now + 0.01)
            if self._agenda.due(self._now):
                self.asked_again += 1
                self._receipts.late(microbatch, self._now)


def test_even_answers_leave_room_for_a_stall() -> None:
    estimate = Estimate()
    for _ in range(1000):
        estimate.add(0.2)
    assert 0.4 <= estimate.patience_s(5.0) < 0.5


def test_each_stage_has_its_own_time() -> None:
    owners = Owners(0.02, 0.02, 0.02, 0.5)
    for index in range(200):
        owners.accumulate(mb(index))
    assert owners.asked_again == 0


def test_owners_that_have_become_slow_are_not_asked_again_for_ever() -> None:
    owners = Owners(0.1, 0.1)
    for index in range(50):
        owners.accumulate(mb(index))
    owners.answer_s = (1.0, 1.0)
    for index in range(50, 70):
        owners.accumulate(mb(index))
    learned, owners.asked_again = owners.asked_again, 0
    for index in range(70, 200):
        owners.accumulate(mb(index))
    assert learned > 0 and owners.asked_again == 0


def test_a_claim_that_was_asked_again_counts_from_the_first_time() -> None:
    peer = Peer(num_stages=2)
    claims_again = []
    for index in range(10):
        peer.forward(mb(index))
        assert sent(peer.computed(mb(index)), Claim)
        peer.now += 40.0
        claims_again.append(len(sent(peer.feed(DeadlinePassed("overdue")), Claim)))
        peer.now += 1.0
        peer.get(Granted(1, mb(index), (UP, ME), (0, 1)))
        peer.feed(BackwardDone(mb(index), 1.0, 100))
    assert claims_again == [1, 1] + 8 * [0]


def test_an_hour_that_somebody_stood_still_does_not_make_patient_for_hours() -> None:
    estimate = Estimate()
    for _ in range(50):
        estimate.add_answer(0.2, estimate.patience_s(5.0))
    patience_s = estimate.patience_s(5.0)
    for _ in range(50):  # all that was under way
        estimate.add_answer(3600.0, patience_s)
    assert patience_s < estimate.patience_s(5.0) <= 8 * patience_s


def test_doubling_comes_to_minutes_however_short_the_answers_were() -> None:
    estimate = Estimate()
    for _ in range(50):
        estimate.add(0.001)
    waits = [estimate.patience_s(5.0, retries) for retries in range(20)]
    assert waits == sorted(waits) and waits[0] < 0.1 and waits[-1] == 120.0


def test_what_others_need_says_little_of_one_who_has_not_answered_yet() -> None:
    times = Estimates()
    assert times.patience_s(UP, 5.0) == 5.0
    for _ in range(50):
        times.add_answer(UP, 0.2, 1.0)
    assert times.patience_s(ME, 5.0) == pytest.approx(4 * times.patience_s(UP, 5.0))
    for _ in range(50):
        times.add_answer(ME, 3.0, times.patience_s(ME, 5.0))
    assert times.patience_s(UP, 5.0) < 0.6 and times.patience_s(ME, 5.0) > 5.0


def test_a_push_over_a_slow_link_is_not_repeated_for_ever() -> None:
    """The link to one of two replicas takes 30 s: what it is given is not given to the other."""
    peer = Peer()
    again = []
    for index in range(40):
        to = peer.pushed(mb(index))
        peer.now += 30.0 if to == A else 0.1
        pushed = sent(peer.feed(DeadlinePassed("overdue")), Forward)
        again.append(len(pushed))
        peer.get(Accepted(Work(mb(index), 1), 0.1, 0.0), to)
        for other, _ in pushed:
            peer.get(Accepted(Work(mb(index), 1), 0.1, 0.0), other)
    assert 0 < sum(again[:20]) and sum(again[20:]) == 0
