"""The hours of the owner of a machine, and what they ask beside them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmrt.cli.options.hours import parse_hours
from swarmrt.errors import UsageError
from swarmrt.scheduler.lending import AHEAD_S, DAY_S, Hours, Owner

HOUR_S = 3600
NIGHT = Hours(22 * HOUR_S, 7 * HOUR_S)


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("22-7", NIGHT),
        ("22:00-7:00", NIGHT),
        ("9:30-17", Hours(9 * HOUR_S + 1800, 17 * HOUR_S)),
        ("0-24", Hours(0, DAY_S)),
        ("18-24", Hours(18 * HOUR_S, DAY_S)),
    ],
)
def test_hours_are_read(text: str, hours: Hours) -> None:
    assert parse_hours(text) == hours


@pytest.mark.parametrize(
    "text", ["", "22", "22-", "25-7", "7-7", "22-7-9", "7:60-8", "x-y", "-1-3"]
)
def test_what_are_no_hours_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write hours like 22-7"):
        parse_hours(text)


@pytest.mark.parametrize(
    ("clock_s", "left_s"),
    [
        (22 * HOUR_S, 9 * HOUR_S),
        (22 * HOUR_S - 1, 0),
        (0, 7 * HOUR_S),
        (7 * HOUR_S - 1, 1),
        (7 * HOUR_S, 0),
        (12 * HOUR_S, 0),
    ],
)
def test_night_lasts_over_midnight(clock_s: float, left_s: float) -> None:
    assert NIGHT.left_s(clock_s) == left_s


def test_a_whole_day_never_ends() -> None:
    assert all(Hours(0, DAY_S).left_s(clock_s) > 0 for clock_s in range(0, DAY_S, 600))


def test_it_goes_gently_before_the_hours_end_and_is_taken_at_their_end() -> None:
    owner, end_s = Owner(NIGHT), 7 * HOUR_S
    assert owner.wish(end_s - AHEAD_S - 1) == "lend"
    assert owner.wish(end_s - AHEAD_S) == "end gently"
    assert owner.wish(end_s) == "take"
    assert owner.wish(22 * HOUR_S) == "lend"


def test_a_pause_holds_over_the_hours() -> None:
    owner = Owner(NIGHT)
    owner.pause()
    assert {owner.wish(clock_s) for clock_s in range(0, DAY_S, 600)} == {"take"}
    owner.resume(23 * HOUR_S)
    assert owner.wish(23 * HOUR_S) == "lend" and owner.wish(8 * HOUR_S) == "take"


def test_who_resumes_outside_of_the_hours_lends_until_they_end_next() -> None:
    owner = Owner(NIGHT)
    owner.resume(12 * HOUR_S)
    assert owner.wish(12 * HOUR_S) == owner.wish(21 * HOUR_S) == owner.wish(23 * HOUR_S) == "lend"
    assert owner.wish(8 * HOUR_S) == "take"


def test_who_resumes_as_the_hours_end_lends_on() -> None:
    owner = Owner(NIGHT)
    owner.resume(7 * HOUR_S - AHEAD_S / 2)
    assert owner.wish(7 * HOUR_S - 1) == owner.wish(8 * HOUR_S) == "lend"


def test_an_end_that_the_clock_skips_is_an_end_all_the_same() -> None:
    """As summer time begins, three o'clock comes after 1:59:59."""
    owner = Owner(Hours(22 * HOUR_S, 2 * HOUR_S + 1800))
    assert owner.wish(2 * HOUR_S - 1) == "lend"
    assert owner.wish(3 * HOUR_S) == "take"


@given(st.integers(0, DAY_S - 1), st.integers(0, DAY_S - 1), st.integers(0, DAY_S - 1))
def test_what_is_left_runs_out_with_the_clock(begin_s: int, end_s: int, clock_s: int) -> None:
    hours = Hours(begin_s, end_s)
    left_s = hours.left_s(clock_s)
    assert 0 <= left_s <= DAY_S
    if left_s > 1:
        assert hours.left_s((clock_s + 1) % DAY_S) == left_s - 1
