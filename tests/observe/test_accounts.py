"""The account of a stage: what was granted, and what has become of it."""

from __future__ import annotations

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Roster
from swarmrt.observe.accounts import Account, Accounts

A, B = PeerId("a"), PeerId("b")
BOTH: Roster = ((A, (0,)), (B, (1,)))


def granted(steps: int) -> Accounts:
    """Two microbatches of each step, in stages 0 and 1."""
    accounts = Accounts()
    for step in range(steps):
        for index in (0, 1):
            accounts.granted(MicrobatchId(step, index), (0, 1))
            accounts.granted(MicrobatchId(step, index), (1,))  # recovered
    return accounts


def account_of(accounts: Accounts, versions: dict[int, Roster], turns: int = 1) -> Account:
    return accounts.of_stage(1, versions, {2}, 0, turns)


def test_whatever_was_granted_is_applied_dropped_or_in_flight() -> None:
    versions: dict[int, Roster] = {1: BOTH, 2: BOTH, 3: ((A, ()), (B, ()))}
    account = account_of(granted(4), versions)
    assert account == Account(1, 8, 4, 0, 2, 2, 0) and not list(account.faults())
    assert str(account) == "stage 1: 8 granted = 4 applied + 0 lost + 2 dropped + 2 in flight"


def test_what_is_done_again_counts_once() -> None:
    accounts = granted(3)
    accounts.back_to(1)
    accounts.granted(MicrobatchId(1, 0), (0, 1))
    assert account_of(accounts, {1: BOTH}) == Account(1, 3, 2, 0, 0, 1, 0)


def test_what_is_in_no_version_is_lost() -> None:
    account = account_of(granted(2), {1: BOTH, 2: ((A, (0, 5)),)})
    assert account == Account(1, 4, 3, 1, 0, 0, 1)
    assert len(list(account.faults())) == 2


def test_who_misses_a_round_before_all_parameters_had_their_turn_has_lost_a_part() -> None:
    without_b: Roster = ((A, (0, 1)),)
    versions: dict[int, Roster] = {1: BOTH, 2: BOTH, 4: BOTH, 5: without_b, 6: BOTH}
    assert account_of(granted(6), versions, turns=1).in_part == 0
    assert account_of(granted(6), versions, turns=2).in_part == 1, "that of version 4"
    account = account_of(granted(6), versions, turns=4)
    assert account.in_part == 2 and "10 applied (2 in part)" in str(account)
