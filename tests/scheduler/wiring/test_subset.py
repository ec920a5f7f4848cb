"""The replicas that a sender uses, of very many."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from swarmrt.ids import SeatId
from swarmrt.scheduler.wiring.subset import LEAST, RENEW_S, Subset

MANY = [SeatId(f"p{number:03d}") for number in range(200)]


def subset_of(seats: list[SeatId], senders: int, seed: int = 0) -> Subset:
    subset = Subset(random.Random(seed))
    subset.one_of(senders)
    for seat in seats:
        subset.add(seat)
    return subset


def used_of(subset: Subset) -> set[SeatId]:
    return {seat for seat in MANY if seat in subset}


def test_a_few_replicas_are_all_used() -> None:
    assert subset_of(MANY[:LEAST], senders=1000).is_all


def test_a_few_senders_use_all_replicas_between_them() -> None:
    assert subset_of(MANY, senders=1).is_all
    assert len(subset_of(MANY, senders=50)) == LEAST * len(MANY) / 50
    assert len(subset_of(MANY, senders=200)) == LEAST


def test_each_replica_is_used_by_about_as_many_senders() -> None:
    used = Counter(seat for seed in range(200) for seat in used_of(subset_of(MANY, 200, seed)))
    assert min(used.values()) > LEAST / 3 and max(used.values()) < LEAST * 2, used
    newest = used[MANY[-1]], used[MANY[0]]
    assert all(LEAST / 2 < number < LEAST * 2 for number in newest), "as with the others' chance"


def test_a_sender_reaches_all_replicas_slowly() -> None:
    subset = subset_of(MANY, senders=200)
    now, reached = 0.0, used_of(subset)
    before = reached
    while len(reached) < len(MANY):
        now += RENEW_S
        subset.renewed(now)
        after = used_of(subset)
        assert len(after) == LEAST and len(after - before) <= 1
        reached |= after
        before = after
    assert now < 4 * 3600


acts = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 99)),
        st.tuples(st.just("remove"), st.integers(0, 99)),
        st.tuples(st.just("one_of"), st.integers(0, 200)),
        st.tuples(st.just("renewed"), st.floats(0, 1000)),
        st.tuples(st.just("exchange")),
    ),
    max_size=80,
)


@given(st.integers(0, 100), acts)
def test_what_changes_is_told(begin: int, history: list[tuple[str, ...]]) -> None:
    subset, there, used = Subset(random.Random(0)), set[SeatId](), set[SeatId]()

    def follow(name: str, *arguments: object) -> None:
        for comes, goes in getattr(subset, name)(*arguments):
            used.difference_update({goes} - {None})
            used.update({comes} - {None})

    for seat in MANY[:begin]:
        follow("add", seat)
        there.add(seat)
    for name, *arguments in history:
        if name in ("add", "remove"):
            seat = MANY[int(arguments[0])]
            if (seat in there) == (name == "add"):
                continue
            used.discard(seat)
            follow(name, seat)
            there.symmetric_difference_update({seat})
        else:
            follow(name, *arguments)
        assert used == used_of(subset) and used <= there
        assert len(used) >= min(LEAST, len(there))
