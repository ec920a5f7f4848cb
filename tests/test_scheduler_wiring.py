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
