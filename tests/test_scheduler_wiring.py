"""Wiring: interleaved weighted round-robin."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from swarmrt.ids import PeerId
from swarmrt.scheduler.wiring import Wiring

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
        wiring.observe(A, 1.0)
        wiring.observe(B, 3.0)
    assert abs(shares(wiring, 400)[A] - 0.75) < 0.02


def test_equal_replicas_interleave() -> None:
    wiring = wiring_of(A, B)
    chosen = [wiring.choose(0.0) for _ in range(20)]
    assert all({first, second} == {A, B} for first, second in zip(*[iter(chosen)] * 2, strict=True))


def test_a_replica_with_a_longer_queue_gets_less() -> None:
    wiring = wiring_of(A, B)
    wiring.observe(A, 0.1, backlog_s=2.0)
    wiring.observe(B, 0.1, backlog_s=1.0)
    assert 0.3 < shares(wiring, 400)[A] < 0.45


def test_whatever_its_queue_every_replica_goes_on_getting_work() -> None:
    wiring = wiring_of(A, B)
    wiring.observe(A, 0.1, backlog_s=1000.0)
    wiring.observe(B, 0.1, backlog_s=0.0)
    assert abs(shares(wiring, 400)[A] - 0.25) < 0.01


def test_queues_stay_equal_though_estimates_are_not_right() -> None:
    """Both take 0.1 s; one is thought to take a tenth more. News of queues are 0.2 s old."""
    wiring = wiring_of(A, B)
    backlog_s = {A: 1.0, B: 1.0}
    history = [dict(backlog_s)]
    for turn in range(4000):
        now = turn * 0.05  # in which both together do 0.1 s of work
        old = history[-4] if turn >= 4 else history[0]
        wiring.observe(A, 0.11, old[A])
        wiring.observe(B, 0.1, old[B])
        chosen = wiring.choose(now)
        assert chosen is not None
        backlog_s[chosen] += 0.1
        backlog_s = {peer: max(0.0, queue_s - 0.05) for peer, queue_s in backlog_s.items()}
        history.append(dict(backlog_s))
    assert all(abs(then[A] - then[B]) < 0.4 for then in history[400:])
    assert all(min(then.values()) > 0 for then in history[400:])


def test_a_replica_that_is_gone_counts_for_no_mean() -> None:
    wiring = wiring_of(A, B, C)
    wiring.observe(A, 0.1, backlog_s=1.0)
    wiring.observe(B, 0.1, backlog_s=1.0)
    wiring.observe(C, 0.1, backlog_s=100.0)
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
        chosen = getattr(wiring, str(name))(*arguments)
        assert name != "choose" or chosen is None or chosen in wiring
        wiring.validate()
