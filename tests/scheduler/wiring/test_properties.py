"""Properties of wiring that hold whatever the replicas are like (Ryabinin et al. 2023, section
3.2)."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from swarmrt.ids import SeatId
from swarmrt.scheduler.wiring.estimates import MOST_MISSED
from swarmrt.scheduler.wiring.stochastic import Wiring

services = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=8)
seeds = st.integers(0, 2**32)


def wiring_of(services_s: list[float], seed: int) -> tuple[Wiring, dict[SeatId, float]]:
    wiring = Wiring(random.Random(seed))
    of = {SeatId(f"p{number}"): service_s for number, service_s in enumerate(services_s)}
    for seat, service_s in of.items():
        wiring.add(seat, service_s)
        wiring.estimates.observe(seat, service_s)
        wiring.estimates.came_back(seat, 0.0, service_s)
    return wiring, of


@given(services, seeds)
def test_shares_follow_speeds(services_s: list[float], seed: int) -> None:
    """From some choice on, nobody is more than one microbatch of his from his share, ever."""
    wiring, service_s = wiring_of(services_s, seed)
    for _ in range(1000):  # where each begins is drawn
        wiring.choose(0.0)
    given = Counter(wiring.choose(0.0) for _ in range(200))
    handed_s = {seat: given[seat] * service_s[seat] for seat in service_s}
    for one in service_s:
        for other in service_s:
            apart_s = abs(handed_s[one] - handed_s[other])
            assert apart_s <= service_s[one] + service_s[other] + 1e-6


@given(services, seeds)
def test_the_same_seed_gives_the_same_choices(services_s: list[float], seed: int) -> None:
    first, second = wiring_of(services_s, seed)[0], wiring_of(services_s, seed)[0]
    assert [first.choose(0.0) for _ in range(50)] == [second.choose(0.0) for _ in range(50)]


def test_senders_with_seeds_of_their_own_do_not_choose_alike() -> None:
    """Else all of them give their first microbatch to the same replica."""
    first = Counter(wiring_of([0.1] * 8, seed)[0].choose(0.0) for seed in range(80))
    assert len(first) == 8 and max(first.values()) < 25


@settings(max_examples=50)
@given(services, seeds, st.integers(0, 40), st.floats(0, 1e3))
def test_nobody_starves(services_s: list[float], seed: int, missed: int, waits_s: float) -> None:
    """Whatever became of what it was given, a replica is tried again; and one that works again
    comes to its share."""
    wiring, service_s = wiring_of(services_s, seed)
    worst = next(iter(service_s))
    for _ in range(missed):
        wiring.estimates.never_came(worst)
        wiring.estimates.unanswered(worst, 1000, waits_s)
    rounds = 2 ** (MOST_MISSED + 1) * max(1.0, service_s[worst] / min(service_s.values()))
    most = int(rounds * len(service_s)) + 10
    got = 0
    for _ in range(most):
        if wiring.choose(0.0) == worst:
            got += 1
            break
    assert got, f"not in {most} choices"
    for turn in range(MOST_MISSED + 1):
        wiring.estimates.came_back(worst, 0.0, service_s[worst] * (turn + 1))
        wiring.estimates.answered(worst, 1000, turn, turn + 1e-9)
    cost_s = wiring.estimates.cost_s(worst)
    assert cost_s <= 1.01 * service_s[worst]


@given(services, seeds)
def test_who_is_known_is_known_when_it_comes_again(services_s: list[float], seed: int) -> None:
    wiring, service_s = wiring_of(services_s, seed)
    for seat, expected_s in service_s.items():
        wiring.remove(seat)
        wiring.add(seat)
        assert wiring.estimates.expected_s(seat) == expected_s


def test_an_unproven_replica_is_taken_at_its_word() -> None:
    wiring = Wiring(random.Random(0))
    wiring.add(SeatId("fast"), 0.1)
    wiring.add(SeatId("slow"), 0.4)
    chosen = [wiring.choose(0.0) for _ in range(100)]
    assert 78 <= chosen.count(SeatId("fast")) <= 82
    wiring.estimates.observe(SeatId("fast"), 0.4)
    assert wiring.estimates.expected_s(SeatId("fast")) == 0.4, "what it does counts for more"


def test_who_says_that_it_takes_no_time_does_not_get_all_work() -> None:
    wiring = Wiring(random.Random(0))
    for number in range(4):
        wiring.add(SeatId(f"p{number}"), 0.1)
    wiring.add(SeatId("liar"), 1e-9)
    assert [wiring.choose(0.0) for _ in range(100)].count(SeatId("liar")) <= 52
    wiring.estimates.observe(SeatId("liar"), 1e-9, 0.0)
    chosen = [wiring.choose(0.0) for _ in range(100)]
    assert chosen.count(SeatId("liar")) <= 52, "that it takes work proves no speed"


def test_who_was_charged_before_anything_was_known_does_not_wait_for_many_rounds() -> None:
    """Accounts count rounds at first: ten of a second each would be a hundred of 0.1 s."""
    wiring, first = Wiring(random.Random(0)), SeatId("p0")
    wiring.set_peers([first, SeatId("p1")])
    for _ in range(10):
        wiring.choose(0.0)
    wiring.estimates.observe(first, 0.1)
    chosen = [wiring.choose(0.0) for _ in range(10)]
    assert 4 <= chosen.count(first) <= 6


def test_a_slow_link_counts_where_it_is_slower_than_the_replica() -> None:
    wiring, far = Wiring(random.Random(0)), SeatId("far")
    wiring.set_peers([far, SeatId("near")])
    for seat in wiring.peers:
        wiring.estimates.observe(seat, 0.1)
    for turn in range(0, 40, 4):
        for pushed_at, answer_at in ((turn, turn + 0.4), (turn, turn + 0.8)):
            wiring.estimates.answered(far, 1000, pushed_at, answer_at)
    chosen = [wiring.choose(0.0) for _ in range(100)]
    assert 18 <= chosen.count(far) <= 22
