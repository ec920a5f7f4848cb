"""Learned deadlines: who is late, who is gone, and who only has a slow listener."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmrt.scheduler.instructions import StartDeadline
from swarmrt.scheduler.timing.agenda import Agenda
from swarmrt.scheduler.trainer.membership.health import Health, Verdict


def heard(every_s: float, times: int = 20, queued: int = 0, working: bool = True) -> Health:
    health = Health()
    for number in range(times):
        health.beacon(number * every_s, queued, number if working else 0)
    return health


def test_silence_is_judged_by_how_often_it_was_heard() -> None:
    for every_s in (0.5, 1.0, 10.0):
        health, last_at = heard(every_s), 19 * every_s
        assert health.verdict(last_at + every_s) is Verdict.FINE
        assert health.verdict(last_at + 2.5 * every_s) is Verdict.SUSPECT
        assert health.verdict(last_at + 6.5 * every_s) is Verdict.GONE


def test_late_beacon_that_comes_after_all_widens_the_deadline() -> None:
    health = heard(1.0)
    before_s = health.deadline_s
    health.beacon(19 + 6.0, 0, 20)
    assert health.deadline_s > 2 * before_s


def test_nobody_is_given_up_for_what_happens_to_everybody() -> None:
    """Two lost datagrams; a radio that stalls for 2 s, just before a beat; a computation that takes
    six times as long, once."""
    assert heard(0.5).verdict(9.5 + 3 * 0.5) is Verdict.SUSPECT
    assert heard(0.5).verdict(9.5 + 0.5 + 2.0) is Verdict.SUSPECT
    slow = Health()
    for number in range(40):  # one computation in two beats
        slow.beacon(0.5 * number, 2, number // 2)
    for number in range(40, 51):
        slow.beacon(0.5 * number, 2, 19)
        assert slow.verdict(0.5 * number) is not Verdict.GONE
    slow.beacon(0.5 * 51, 2, 20)
    assert slow.verdict(0.5 * 51) is Verdict.FINE


def test_computations_between_two_beacons_are_counted_one_by_one() -> None:
    """Ten of them in each beat: who does none in eight beats hangs, however few those seem to be
    beside computations of half a beat."""
    health = Health()
    for number in range(20):
        health.beacon(0.5 * number, 4, 10 * number)
    assert health.progress.mean_s == 0.05
    for number in range(20, 28):
        health.beacon(0.5 * number, 4, 190)
    assert health.verdict(0.5 * 27) is Verdict.GONE


def test_one_long_absence_does_not_make_patient_for_ever() -> None:
    health = heard(1.0)
    health.beacon(19 + 3600.0, 0, 20)
    assert health.deadline_s < 20


def test_listener_that_slept_gives_no_credit_for_later() -> None:
    """What has come meanwhile is read first: who was just heard is not forgiven an hour to come."""
    health = heard(1.0)
    health.beacon(3619.0, 0, 20)
    health.slept(3600.0, 3619.0)
    assert health.heard_at == 3619.0


def test_burst_that_was_held_up_does_not_narrow_it() -> None:
    health = heard(1.0)
    before_s = health.deadline_s
    for _ in range(10):
        health.beacon(19.0, 0, 19)
    assert health.deadline_s == before_s


def test_who_beacons_but_does_not_get_on_with_its_work_is_found_out() -> None:
    health = heard(1.0, queued=3)
    for number in range(20, 60):
        health.beacon(float(number), 3, 19)
    assert health.verdict(59.5) is Verdict.GONE
    idle = heard(1.0, times=60, queued=0, working=False)
    assert idle.verdict(59.5) is Verdict.FINE, "it has nothing to do"


def test_time_in_which_the_listener_stood_still_does_not_count() -> None:
    health = heard(1.0)
    health.slept(100.0, 119.5)
    assert health.verdict(19 + 100.5) is Verdict.FINE


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 100)), max_size=30), st.floats(0, 100))
def test_agenda_tells_what_is_due_once_and_arms_the_earliest(
    entries: list[tuple[int, float]], now: float
) -> None:
    agenda: Agenda[int] = Agenda("overdue")
    newest: dict[int, float] = {}
    for key, at in entries:
        agenda.set(key, at)
        newest[key] = at
    if newest:
        assert agenda.arm() == [StartDeadline("overdue", min(newest.values()))]
    assert agenda.arm() == [], "it is armed already"
    due = agenda.due(now)
    assert sorted(due) == sorted(key for key, at in newest.items() if at <= now + 1e-3)
    assert agenda.due(now) == []


def test_answers_to_several_hails_are_no_beats() -> None:
    """A peer that has just come answers each of them, and its next beat is half a second later."""
    health = Health()
    for number in range(6):
        health.beacon(13.404 + 0.002 * number, 0, 0)
    assert health.verdict(13.6) is Verdict.FINE
    assert health.verdict(14.0) is Verdict.FINE


def beating(intervals: list[float], late_s: float = 0.0) -> tuple[Health, float]:
    """Return one that keeps these intervals, each announced by the beacon before it, and when it
    was last heard."""
    health, now = Health(), 0.0
    for number, every_s in enumerate(intervals):
        assert health.verdict(now) is Verdict.FINE, (number, every_s)
        health.beacon(now, 0, 0, every_s)
        now += every_s + (late_s if number < len(intervals) - 1 else -every_s)
    return health, now


def test_nobody_is_late_because_the_interval_grows_or_shrinks() -> None:
    grows = [0.5] * 20 + [0.6, 1.0, 3.0, 12.0, 50.0, 50.0]
    for intervals in (grows, [*grows, *reversed(grows)], [50.0] * 8 + [0.5] * 8):
        beating(intervals)
        beating(intervals, late_s=0.1)


def test_who_is_silent_is_found_out_within_the_interval_that_it_has_announced() -> None:
    for every_s in (0.5, 5.0, 50.0):
        health, last_at = beating([0.5] * 5 + [every_s] * 5)
        assert health.verdict(last_at + 1.4 * every_s) is Verdict.FINE
        assert health.verdict(last_at + 2.5 * every_s) is Verdict.SUSPECT
        assert health.verdict(last_at + 6.5 * every_s) is Verdict.GONE


def test_other_words_are_not_waited_for_any_longer_where_beacons_are_rare() -> None:
    often, _ = beating([0.5] * 20)
    rarely, _ = beating([50.0] * 20)
    assert rarely.patience_s == often.patience_s == often.deadline_s
    assert rarely.deadline_s == 100 * often.deadline_s


def test_a_beacon_out_of_turn_does_not_narrow_it() -> None:
    health, last_at = beating([50.0] * 10)
    before_s = health.deadline_s
    for number in range(20):
        health.beacon(last_at + 0.5 * number, 0, 0, 50.0)
    assert health.deadline_s == before_s
