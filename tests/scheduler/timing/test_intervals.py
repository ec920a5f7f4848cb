"""Intervals that grow with a swarm: what the trainer handles in a second is bounded."""

from __future__ import annotations

import math

import pytest

from swarmrt.scheduler.timing.intervals import (
    MOST_BEACON_S,
    MOST_BEACONS_PER_S,
    TOO_OFTEN,
    beacon_s,
    beacon_within_bounds,
    directory_s,
    is_off,
    offers_s,
    phase,
    record_life_s,
    renew_s,
)
from swarmrt.scheduler.timing.times import BEACON_S, OFFERS_S


def test_a_small_swarm_keeps_the_constant_intervals() -> None:
    most = int(BEACON_S * MOST_BEACONS_PER_S)
    assert all(beacon_s(members) == BEACON_S for members in range(most + 1))
    assert all(offers_s(number) == OFFERS_S for number in range(251))
    assert directory_s(200, 1.0) == 1.0 and directory_s(10_000, 1.0) == 50.0


@pytest.mark.parametrize("members", [16, 256, 1000, 10_000, 12_000])
def test_whoever_is_left_in_peace_is_not_heard_more_often_than_is_wanted(members: int) -> None:
    wanted_s = beacon_s(members)
    rarest = [every_s for every_s in (0.5, 0.7, 1.0, 3.0, 30.0) if not is_off(every_s, wanted_s)]
    most = TOO_OFTEN * MOST_BEACONS_PER_S
    assert all(members / every_s <= most for every_s in [*rarest, wanted_s])


@pytest.mark.parametrize("told_s", [0.0, -1.0, 1e-9, 1e6, math.inf])
def test_no_word_makes_anybody_flood_or_fall_silent(told_s: float) -> None:
    assert BEACON_S <= beacon_within_bounds(told_s) <= MOST_BEACON_S


def test_a_few_more_peers_are_no_reason_to_tell_all() -> None:
    assert not is_off(5.0, beacon_s(1100)) and is_off(5.0, beacon_s(1300))
    assert not is_off(5.0, beacon_s(600)) and is_off(5.0, beacon_s(400))


def test_many_that_are_told_at_once_beacon_at_different_times() -> None:
    phases = sorted(phase(f"peer {number}") for number in range(1000))
    assert 0 < phases[0] and phases[-1] <= 1
    shares = [sum(low < one <= low + 0.1 for one in phases) for low in (0.0, 0.3, 0.6, 0.9)]
    assert all(50 < share < 150 for share in shares)


@pytest.mark.parametrize("every_s", [BEACON_S, 5.0, 50.0, MOST_BEACON_S])
@pytest.mark.parametrize("record_ttl_s", [3.0, 15.0, 600.0])
def test_a_record_lives_until_two_renewals_were_missed(every_s: float, record_ttl_s: float) -> None:
    assert record_life_s(record_ttl_s, every_s) >= 3 * renew_s(record_ttl_s, every_s) - 1e-9
    assert record_life_s(record_ttl_s) == record_ttl_s


def test_no_flood_of_records_blinds_a_reader() -> None:
    assert directory_s(10**6, 1.0) == 60.0 and directory_s(10**6, 120.0) == 120.0
