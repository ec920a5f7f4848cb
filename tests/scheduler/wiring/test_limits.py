"""The limits of replicas: a block, and what they can hold."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from swarmrt.ids import SeatId
from swarmrt.scheduler.wiring.limits import Blocked
from swarmrt.scheduler.wiring.stochastic import Wiring
from swarmrt.scheduler.wiring.subset import LEAST

A, B, C = SeatId("a"), SeatId("b"), SeatId("c")


def wiring_of(*seats: SeatId, seed: int = 0) -> Wiring:
    wiring = Wiring(random.Random(seed))
    wiring.set_peers(seats)
    return wiring


acts = st.lists(
    st.one_of(
        st.tuples(st.just("choose"), st.integers(0, 20)),
        st.tuples(st.just("over"), st.integers(0, 20)),
        st.tuples(st.just("block"), st.sampled_from([A, B, C]), st.floats(0, 10)),
        st.tuples(st.just("remove"), st.sampled_from([A, B, C])),
        st.tuples(st.just("add"), st.sampled_from([A, B, C])),
    ),
    max_size=80,
)


@given(st.dictionaries(st.sampled_from([A, B, C]), st.integers(1, 4)), acts)
def test_a_capacity_is_never_exceeded(
    capacity: dict[SeatId, int], history: list[tuple[str, ...]]
) -> None:
    wiring, at = wiring_of(A, B, C), dict[object, SeatId]()
    for seat, most in capacity.items():
        wiring.limit(seat, most)
    for number, (name, *arguments) in enumerate(history):
        if name == "choose":
            at.pop(arguments[0], None)
            chosen = wiring.choose(0.1 * number, arguments[0])
            if chosen is not None:
                at[arguments[0]] = chosen
        else:
            getattr(wiring, name)(*arguments)
            at.pop(arguments[0] if name == "over" else None, None)
            if name in ("remove", "add"):
                capacity.pop(SeatId(arguments[0]), None)  # it is said again when it comes again
        held = Counter(at.values())
        assert all(held[seat] <= most for seat, most in capacity.items())
        wiring.validate()


def test_work_goes_elsewhere_while_one_is_full() -> None:
    wiring = wiring_of(A, B)
    wiring.limit(A, 2)
    chosen = [wiring.choose(0.0, number) for number in range(20)]
    assert chosen.count(A) == 2
    wiring.over(chosen.index(A))
    assert [wiring.choose(0.0, number) for number in range(20, 23)].count(A) == 1


def test_nobody_is_chosen_where_all_are_full() -> None:
    wiring = wiring_of(A)
    wiring.limit(A, 1)
    assert (wiring.choose(0.0, 1), wiring.choose(0.0, 2)) == (A, None)
    assert wiring.choose(0.0, 1) == A, "what is chosen for again is not held where it was"
    wiring.clear()
    assert wiring.choose(0.0, 3) == A


def test_who_refuses_again_and_again_takes_no_more_memory() -> None:
    blocked = Blocked()
    tracemalloc.start()
    for turn in range(10_000):
        blocked.block(A, 1e6 + turn)
        blocked.block(B, 1e6 - turn)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 100_000
    assert blocked.next_over(2e6) == B
    assert blocked.next_over(2e6) == A
    assert blocked.next_over(2e6) is None


def test_who_was_blocked_for_long_gets_no_burst() -> None:
    wiring = wiring_of(A, B, C)
    for seat in (A, B, C):
        wiring.estimates.observe(seat, 0.1)
    wiring.block(A, until=1000.0)
    assert A not in [wiring.choose(now) for now in range(1000)]
    first = [wiring.choose(1000.0) for _ in range(9)]
    assert first.count(A) in (3, 4), first


def test_many_that_were_blocked_come_back_a_few_at_a_time() -> None:
    """Nobody waits for thousands of them; while nobody else can take work, all are looked at."""
    seats = [SeatId(f"p{number:04d}") for number in range(1000)]
    wiring = wiring_of(*seats)
    for seat in seats[1:]:
        wiring.block(seat, until=5.0)
    chosen = Counter(wiring.choose(6.0) for _ in range(10_000))
    assert min(chosen[seat] for seat in seats[1:]) >= 5


def test_where_none_of_the_used_can_take_work_others_are() -> None:
    wiring = Wiring(random.Random(0), is_only_sender=False)
    wiring.one_of(1000)
    wiring.set_peers(SeatId(f"p{number:03d}") for number in range(100))
    used = {wiring.choose(0.0) for _ in range(1000)}
    assert len(used) <= LEAST
    for seat in used - {None}:
        assert seat is not None
        wiring.block(seat, until=1e6)
    others = {wiring.choose(1.0) for _ in range(100)}
    assert others and None not in others and not others & used
