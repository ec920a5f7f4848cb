"""The ledger: one owner, one receipt, for each (microbatch, stage)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import Claim
from swarmrt.scheduler.trainer.work.ledger import NOBODY, Ledger

A = (PeerId("a0"), PeerId("a1"), PeerId("a2"))
B = (PeerId("b0"), PeerId("b1"), PeerId("b2"))


def claim(index: int, attempt: int = 1, route: tuple[PeerId, ...] = A) -> Claim:
    return Claim(Work(MicrobatchId(3, index), attempt), 1, route, 10.0, 5)


def everybody(_: PeerId, __: int) -> bool:
    return True


def new_ledger(microbatches: int = 1) -> Ledger:
    return Ledger(step=3, microbatches=microbatches, num_stages=3)


def test_one_route_is_granted_and_the_other_is_stale() -> None:
    ledger = new_ledger()
    granted = ledger.claim(claim(0), everybody)
    assert granted is not None and (granted.path, granted.need) == (A, (0, 1, 2))
    assert ledger.claim(claim(0, 2, B), everybody) is None
    assert ledger.claim(claim(0), everybody) == granted, "asked again, the same answer"


def test_only_the_owner_gives_receipts_and_each_counts_once() -> None:
    ledger = new_ledger()
    ledger.claim(claim(0), everybody)
    assert not ledger.receipt(B[1], 0, 1)
    assert not ledger.receipt(A[1], 0, 0)
    assert not ledger.receipt(A[1], 0, 3)
    assert ledger.receipt(A[1], 0, 1)
    assert not ledger.receipt(A[1], 0, 1)


def test_owner_that_is_gone_leaves_its_stage_vacant() -> None:
    ledger = new_ledger()
    ledger.claim(claim(0), lambda peer, _: peer != A[1])
    assert ledger.vacancies() == [(0, 1)]
    assert ledger.has_frames(0, 1)


def test_fence_voids_receipts_and_release_does_not_touch_them() -> None:
    ledger = new_ledger()
    ledger.claim(claim(0), everybody)
    ledger.receipt(A[2], 0, 2)
    assert not ledger.release(A[2], 0, 2), "it is accumulated"
    assert ledger.fence(A[2]) == 1
    assert not ledger.receipt(A[2], 0, 2), "a word from before the fence"
    assert ledger.assign(0, 2, B[2]).path == (A[0], A[1], B[2])
    assert ledger.receipt(B[2], 0, 2)


def test_frames_serve_only_if_both_neighbours_have_theirs() -> None:
    ledger = new_ledger()
    ledger.claim(claim(0), everybody)
    ledger.fence(A[1])
    assert ledger.has_frames(0, 1)
    ledger.fence(A[2])
    assert not ledger.has_frames(0, 1) and not ledger.has_frames(0, 2)


def test_another_attempt_fills_vacancies_and_passes_through_the_rest() -> None:
    ledger = new_ledger()
    ledger.claim(claim(0), everybody)
    ledger.receipt(A[2], 0, 2)
    ledger.fence(A[1])
    granted = ledger.claim(claim(0, 2, B), everybody)
    assert granted is not None
    assert granted.need == (0, 1), "the last stage is accumulated and only passes on"
    assert granted.path == (A[0], B[1], B[2]), "the first stage keeps its owner and its graph"


def test_released_for_lack_of_frames_needs_another_attempt() -> None:
    ledger = new_ledger()
    ledger.claim(claim(0), everybody)
    ledger.fence(A[1])
    ledger.assign(0, 1, B[1])
    assert ledger.release(B[1], 0, 1)
    assert not ledger.has_frames(0, 1)


def test_frontier_is_what_should_accumulate_next() -> None:
    ledger = new_ledger()
    ledger.claim(claim(0), everybody)
    assert ledger.frontier(0) == [(2, A[2])]
    ledger.receipt(A[2], 0, 2)
    assert ledger.frontier(0) == [(1, A[1])]


def test_roster_lists_members_that_did_nothing() -> None:
    ledger = new_ledger(2)
    ledger.claim(claim(0), everybody)
    ledger.claim(claim(1), everybody)
    assert ledger.roster(0, [B[0], A[0]]) == ((A[0], (0, 1)), (B[0], ()))
    assert ledger.tokens == 10 and ledger.loss == 2.0


PEERS = st.sampled_from([*A, *B])
ACTS = st.one_of(
    st.tuples(st.just("claim"), st.integers(0, 2), st.sampled_from([A, B])),
    st.tuples(st.just("receipt"), st.integers(0, 2), PEERS),
    st.tuples(st.just("release"), st.integers(0, 2), PEERS),
    st.tuples(st.just("fence"), st.integers(0, 2), PEERS),
    st.tuples(st.just("assign"), st.integers(0, 2), PEERS),
)


@given(st.lists(ACTS, max_size=40))
def test_whatever_happens_each_pair_has_one_owner(acts: list[tuple[str, int, object]]) -> None:
    ledger = new_ledger(3)
    for act, index, who in acts:
        if act == "claim":
            assert isinstance(who, tuple)
            ledger.claim(claim(index, route=who), everybody)
            continue
        peer = PeerId(str(who))
        stage = int(peer[1])
        match act:
            case "receipt":
                ledger.receipt(peer, index, stage)
            case "release" if ledger.is_claimed(index):
                ledger.release(peer, index, stage)
            case "fence":
                ledger.fence(peer)
            case "assign" if (index, stage) in ledger.vacancies():
                ledger.assign(index, stage, peer)
        ledger.validate()
        assert ledger.complete == (not ledger.missing())
    owned = [i for _, indices in ledger.roster(1, [A[1], B[1], NOBODY]) for i in indices]
    assert len(owned) == len(set(owned))
