"""Wiring: interleaved weighted round-robin."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmrt.ids import PeerId
from swarmrt.scheduler.wiring.stochastic import Wiring

A, B, C = PeerId("a"), PeerId("b"), PeerId("c")


def wiring_of(*peers: PeerId, seed: int = 0) -> Wiring:
    wiring = Wiring(random.Random(seed))
    wiring.set_peers(peers)
    return wiring


def shares(wiring: Wiring, choices: int) -> dict[PeerId, float]:
    chosen = [wiring.choose(now=0.0) for _ in range(choices)]
    return {peer: chosen.count(peer) / choices for peer in wiring.peers}


def test_iwrr_shares_follow_throughput() -> None:
    """Ryabinin et al. 2023, section 3.2: work in proportion to the rate."""
    wiring = wiring_of(A, B)
    for _ in range(50):
        wiring.estimates.observe(A, 1.0)
        wiring.estimates.observe(B, 3.0)
    assert abs(shares(wiring, 400)[A] - 0.75) < 0.02


def test_equal_replicas_interleave() -> None:
    wiring = wiring_of(A, B)
    chosen = [wiring.choose(0.0) for _ in range(20)]
    assert all({first, second} == {A, B} for first, second in zip(*[iter(chosen)] * 2, strict=True))


def test_a_replica_with_a_longer_queue_gets_less() -> None:
    wiring = wiring_of(A, B)
    wiring.estimates.observe(A, 0.1, backlog_s=2.0)
    wiring.estimates.observe(B, 0.1, backlog_s=1.0)
    assert 0.3 < shares(wiring, 400)[A] < 0.45


def test_whatever_its_queue_every_replica_goes_on_getting_work() -> None:
    wiring = wiring_of(A, B)
    wiring.estimates.observe(A, 0.1, backlog_s=1000.0)
    wiring.estimates.observe(B, 0.1, backlog_s=0.0)
    assert abs(shares(wiring, 400)[A] - 0.25) < 0.01


def test_queues_stay_equal_though_estimates_are_not_right() -> None:
    """Both take 0.1 s; one is thought to take a tenth more. News of queues are 0.2 s old."""
    wiring = wiring_of(A, B)
    backlog_s = {A: 1.0, B: 1.0}
    history = [dict(backlog_s)]
    for turn in range(4000):
        now = turn * 0.05  # in which both together do 0.1 s of work
        old = history[-4] if turn >= 4 else history[0]
        wiring.estimates.observe(A, 0.11, old[A])
        wiring.estimates.observe(B, 0.1, old[B])
        chosen = wiring.choose(now)
        assert chosen is not None
        backlog_s[chosen] += 0.1
        backlog_s = {peer: max(0.0, queue_s - 0.05) for peer, queue_s in backlog_s.items()}
        history.append(dict(backlog_s))
    assert all(abs(then[A] - then[B]) < 0.4 for then in history[400:])
    assert all(min(then.values()) > 0 for then in history[400:])


def test_a_replica_that_is_gone_counts_for_no_mean() -> None:
    wiring = wiring_of(A, B, C)
    wiring.estimates.observe(A, 0.1, backlog_s=1.0)
    wiring.estimates.observe(B, 0.1, backlog_s=1.0)
    wiring.estimates.observe(C, 0.1, backlog_s=100.0)
    wiring.remove(C)
    assert abs(shares(wiring, 400)[A] - 0.5) < 0.01


def test_newcomer_enters_at_the_median() -> None:
    """It must not get every microbatch until its account has caught up."""
    wiring = wiring_of(A, B)
    shares(wiring, 1000)
    wiring.add(C)
    assert shares(wiring, 30)[C] < 0.5


def test_blocked_replica_gets_nothing_until_its_time() -> None:
    wiring = wiring_of(A, B)
    wiring.block(A, until=5.0)
    assert {wiring.choose(now=1.0) for _ in range(10)} == {B}
    assert A in {wiring.choose(now=6.0) for _ in range(10)}


def test_nobody_to_choose() -> None:
    assert wiring_of().choose(0.0) is None
    wiring = wiring_of(A)
    wiring.block(A, until=5.0)
    assert wiring.choose(0.0) is None


def test_same_seed_same_choices() -> None:
    first, second = wiring_of(A, B, C, seed=7), wiring_of(A, B, C, seed=7)
    assert [first.choose(0.0) for _ in range(99)] == [second.choose(0.0) for _ in range(99)]


acts = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abcd")),
        st.tuples(st.just("remove"), st.sampled_from("abcd")),
        st.tuples(st.just("observe"), st.sampled_from("abcd"), st.floats(0.001, 100)),
        st.tuples(st.just("block"), st.sampled_from("abcd"), st.floats(0, 10)),
        st.tuples(st.just("choose"), st.floats(0, 10)),
    ),
    max_size=60,
)


@given(acts)
def test_any_history_keeps_one_live_entry_a_replica(history: list[tuple[object, ...]]) -> None:
    wiring = wiring_of(A, B)
    for name, *arguments in history:
        of = wiring.estimates if name == "observe" else wiring
        chosen = getattr(of, str(name))(*arguments)
        assert name != "choose" or chosen is None or chosen in wiring
        wiring.validate()


# ---------------------------------------------------------------------- what replicas say of it


def share_of_a(
    said_s: float, takes_s: float = 0.1, turns: int = 300, *, is_only_sender: bool = True
) -> float:
    """Of the work, when A says that, B says what is true, and both take equally long."""
    wiring = Wiring(random.Random(0), is_only_sender=is_only_sender)
    wiring.set_peers([A, B])
    free_at = {A: 0.0, B: 0.0}
    waiting: list[tuple[float, PeerId, float]] = []
    given = {A: 0, B: 0}
    now = 0.0
    for _ in range(turns):
        now += takes_s / 2  # as fast as both together can do it
        wiring.estimates.observe(A, said_s, 0.0)
        wiring.estimates.observe(B, takes_s, 0.0)
        for done_at, peer, pushed_at in [entry for entry in waiting if entry[0] <= now]:
            wiring.estimates.came_back(peer, pushed_at, done_at)
            waiting.remove((done_at, peer, pushed_at))
        chosen = wiring.choose(now)
        assert chosen is not None
        given[chosen] += 1
        free_at[chosen] = max(now, free_at[chosen]) + takes_s
        waiting.append((free_at[chosen], chosen, now))
    return given[A] / turns


def test_speed_is_measured_and_not_believed() -> None:
    """One that says 1 ns is charged half of what it is seen to take."""
    assert share_of_a(said_s=1e-9) < 0.72
    assert abs(share_of_a(said_s=0.1) - 0.5) < 0.02
    assert share_of_a(said_s=1e-9, is_only_sender=False) < 0.85


def test_whoever_gives_nothing_back_is_charged_more_and_more() -> None:
    wiring = wiring_of(A, B)
    for _ in range(20):
        wiring.estimates.observe(A, 1e-9, 0.0)
        wiring.estimates.observe(B, 0.1, 0.0)
        wiring.estimates.never_came(A)
        wiring.estimates.came_back(B, 0.0, 0.1)
    wiring.estimates.observe(A, 0.1, 0.0)
    for _ in range(100):
        wiring.estimates.observe(A, 0.1, 0.0)
    assert shares(wiring, 400)[A] < 0.05
    for _ in range(10):
        wiring.estimates.came_back(A, 0.0, 0.1)
    assert shares(wiring, 4000)[A] > 0.3, "it works again"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_what_is_no_time_enters_no_mean(value: float) -> None:
    wiring = wiring_of(A, B, C)
    wiring.estimates.observe(A, 0.1, value)
    wiring.estimates.observe(B, value, 0.1)
    wiring.estimates.observe(B, 0.1, 0.1)
    wiring.estimates.observe(C, 0.1, 0.1)
    got = shares(wiring, 300)
    assert all(abs(share - 1 / 3) < 0.05 for share in got.values()), got
    wiring.remove(A)
    wiring.add(PeerId("d"))
    assert shares(wiring, 300)[PeerId("d")] > 0.2, "a newcomer's account is a number"
