"""The ledger: one owner, one receipt, for each (microbatch, stage)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import Claim
from swarmrt.scheduler.ledger import Ledger

ROUTES = [(PeerId("a0"), PeerId("a1")), (PeerId("b0"), PeerId("b1"))]


def claim(index: int, attempt: int = 1, route: int = 0) -> Claim:
    return Claim(Work(MicrobatchId(3, index), attempt), 1, ROUTES[route], 10.0, 5)


def test_one_route_is_granted_and_the_other_is_stale() -> None:
    ledger = Ledger(step=3, microbatches=2, num_stages=2)
    assert ledger.claim(claim(0, route=0))
    assert not ledger.claim(claim(0, route=1))
    assert not ledger.claim(claim(0, attempt=2))
    assert ledger.claim(claim(0, route=0)), "asked again, the same answer"


def test_only_the_owner_gives_receipts() -> None:
    ledger = Ledger(step=3, microbatches=1, num_stages=2)
    ledger.claim(claim(0))
    work = claim(0).work
    assert not ledger.receipt(PeerId("b1"), work, 1)
    assert not ledger.receipt(PeerId("a1"), work, 0)
    assert not ledger.receipt(PeerId("a1"), work._replace(attempt=2), 1)
    assert not ledger.receipt(PeerId("a1"), work, 2)
    assert ledger.receipt(PeerId("a1"), work, 1)


def test_roster_lists_members_that_did_nothing() -> None:
    ledger = Ledger(step=3, microbatches=2, num_stages=2)
    ledger.claim(claim(0))
    ledger.claim(claim(1))
    members = [PeerId("b0"), PeerId("a0")]
    assert ledger.roster(0, members) == ((PeerId("a0"), (0, 1)), (PeerId("b0"), ()))
    assert ledger.tokens == 10 and ledger.loss == 2.0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(0, 1), st.booleans())))
def test_complete_only_when_each_pair_has_its_receipt(
    acts: list[tuple[int, int, int, bool]],
) -> None:
    """Whatever is claimed and receipted, in whatever order and how often."""
    ledger = Ledger(step=3, microbatches=3, num_stages=2)
    for index, attempt, route, is_claim in acts:
        if is_claim:
            ledger.claim(claim(index, attempt, route))
        else:
            for stage in (0, 1):
                ledger.receipt(ROUTES[route][stage], claim(index, attempt).work, stage)
        ledger.validate()
        assert ledger.complete == (not ledger.missing())
        owned = [
            index for _, indices in ledger.roster(1, [r[1] for r in ROUTES]) for index in indices
        ]
        assert len(owned) == len(set(owned))
