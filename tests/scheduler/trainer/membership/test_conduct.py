"""What peers have done to the run, and whose word counts."""

from __future__ import annotations

from swarmrt.ids import PeerId
from swarmrt.scheduler.timing.times import CONFIRM_S, CUT_S
from swarmrt.scheduler.trainer.agreeing import odd_ones
from swarmrt.scheduler.trainer.closing.disputes import NotFinite, Unreachable
from swarmrt.scheduler.trainer.membership.conduct import (
    MAKES_UP,
    MOST_DOUBLINGS,
    MOST_KNOWN,
    WAITED_FOR,
    Conduct,
)

A, B, C, D = map(PeerId, "abcd")


def test_each_fault_bars_for_twice_as_long() -> None:
    conduct, bars = Conduct(), []
    for _ in range(MOST_DOUBLINGS + 3):
        conduct.fault(A, version=10, now=0.0)
        bars.append(next(v - 10 for v in range(10, 5000) if not conduct.is_barred(A, v, 0.0)))
    assert bars[:4] == [1, 2, 4, 8]
    assert bars[-1] == bars[-2] == 2**MOST_DOUBLINGS
    assert not conduct.is_barred(B, 10, 0.0)


def test_commits_make_up_for_faults() -> None:
    conduct = Conduct()
    conduct.fault(A, 10, 0.0)
    conduct.fault(A, 20, 0.0)
    for _ in range(MAKES_UP):
        conduct.took_part(A)
    assert conduct.faults(A) == 1
    for _ in range(MAKES_UP):
        conduct.took_part(A)
    assert conduct.faults(A) == 0


def test_whoever_was_waited_for_is_barred_for_longer_than_that() -> None:
    conduct = Conduct()
    conduct.fault(A, version=10, now=100.0, waited_s=60.0)
    assert conduct.is_barred(A, 1000, 100.0 + WAITED_FOR * 60.0 - 1)
    assert not conduct.is_barred(A, 1000, 100.0 + WAITED_FOR * 60.0 + 1)


def test_acquitted_it_may_come_at_once() -> None:
    conduct = Conduct()
    conduct.fault(A, 10, 0.0)
    conduct.acquit(A)
    assert not conduct.is_barred(A, 10, 0.0) and conduct.faults(A) == 0


def test_a_cut_bars_for_this_step_and_is_no_fault() -> None:
    conduct = Conduct()
    conduct.cut(A, 10, 0.0)
    assert conduct.is_barred(A, 10, 0.0) and not conduct.is_barred(A, 11, 0.0)
    assert not conduct.is_barred(A, 10, CUT_S), "the step takes so long that it may try again"
    assert conduct.faults(A) == 0


def test_whoever_is_cut_off_from_many_is_the_one_to_go() -> None:
    conduct, owned = Conduct(), {A: 5, B: 1, C: 1, D: 1}.__getitem__
    assert conduct.choose_of(A, B, owned) == B, "it has less to be computed again"
    assert conduct.choose_of(A, C, owned) == A
    assert conduct.choose_of(A, D, owned) == A
    conduct = Conduct()
    goes = [conduct.choose_of(A, B, owned) for _ in range(4)]
    assert goes == [B, A, B, A], "of two alone, one after the other"


def test_what_is_remembered_is_bounded() -> None:
    conduct = Conduct()
    for number in range(3 * MOST_KNOWN):
        conduct.fault(PeerId(str(number)), 10, 0.0)
        conduct.expel(PeerId(str(number)))
    newest = PeerId(str(3 * MOST_KNOWN - 1))
    assert conduct.is_expelled(newest) and conduct.faults(newest) == 1
    assert not conduct.is_expelled(PeerId("0")) and conduct.faults(PeerId("0")) == 0


def test_the_majority_counts_and_then_the_most_trusted() -> None:
    trust = {A: 2, B: 1, C: 3, D: 0}.__getitem__
    assert odd_ones({A: "x", B: "x"}, trust) == []
    assert odd_ones({A: "x", B: "y", C: "x"}, trust) == [B]
    assert odd_ones({A: "x", B: "y"}, trust) == [A], "B is trusted more"
    assert odd_ones({A: "x", B: "y", C: "x"}, trust, known="y") == [A, C]
    assert odd_ones({A: "x", B: "y", C: "z"}, trust) == [A, C]


def test_who_cannot_reach_whom() -> None:
    members = (A, B, C, D)
    said = Unreachable()
    assert said.said(A, B, 1, members, 0.0) == "nobody"
    assert said.said(A, B, 1, members, 0.0) == "nobody", "the same word, again"
    assert said.said(B, A, 1, members, 0.1) == "between them"
    said = Unreachable()
    assert said.said(A, B, 1, members, 0.0) == "nobody"
    assert said.said(A, C, 2, members, 0.1) == "too soon", "the other's word may be on its way"
    assert said.said(A, C, 3, members, CONFIRM_S) == "the accuser"
    said = Unreachable()
    assert said.said(A, D, 1, members, 0.0) == "nobody"
    assert said.said(B, D, 1, members, 0.0) == "the other", "two of three"


def test_whoever_disputes_with_more_others_goes() -> None:
    disputes = NotFinite()
    assert disputes.named(A, B) == B
    assert disputes.named(A, C) == A
    disputes = NotFinite()
    assert disputes.named(A, C) == C
    assert disputes.named(B, C) == C
    assert disputes.named(C, C) == C
