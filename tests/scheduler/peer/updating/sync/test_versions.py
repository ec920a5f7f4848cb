"""The versions of a seat whose replicas commit together, asked as its work asks them."""

from __future__ import annotations

import pytest

from swarmrt.ids import MicrobatchId
from swarmrt.messages import Prepare
from swarmrt.scheduler.instructions import DropRound
from swarmrt.scheduler.peer.updating.sync.versions import SyncVersions
from tests.scheduler.peer_core import ME, Peer, mb


def versions(staleness: int, version: int = 3, fresh_steps: int = 0) -> SyncVersions:
    seat = Peer(staleness=staleness, fresh_steps=fresh_steps).core.seat
    seat.version = version
    return SyncVersions(seat)


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_step_runs_on_the_version_that_it_updates_or_the_one_before(staleness: int) -> None:
    asked = versions(staleness)
    steps = [mb(0, step) for step in range(7)]
    assert [asked.runs_on(one) for one in steps] == [step - staleness for step in range(7)]
    assert [step for step, one in enumerate(steps) if asked.is_over(one)] == [0, 1, 2]
    newest = 3 + staleness
    assert [step for step, one in enumerate(steps) if asked.is_open(one)] == [3, newest][
        : newest - 2
    ]
    too_early = [step for step, one in enumerate(steps) if asked.is_too_early(one)]
    assert too_early == list(range(newest + 2, 7)), "one more may wait for its version"


def test_the_last_fresh_step_and_the_first_stale_one_run_on_the_same_version() -> None:
    asked = versions(staleness=1, fresh_steps=4)
    steps = [mb(0, step) for step in range(7)]
    assert [asked.runs_on(one) for one in steps] == [0, 1, 2, 3, 3, 4, 5]
    assert [step for step, one in enumerate(steps) if asked.is_open(one)] == [3, 4]
    asked = versions(staleness=1, fresh_steps=5)
    assert [step for step, one in enumerate(steps) if asked.is_open(one)] == [3]
    too_early = [step for step, one in enumerate(steps) if asked.is_too_early(one)]
    assert too_early == [6], "4 and 5 are for the next version"


def test_an_evaluation_runs_on_the_version_that_it_is_of() -> None:
    asked = versions(staleness=1)
    evaluations = [MicrobatchId(step, 0, True) for step in range(6)]
    assert [asked.runs_on(one) for one in evaluations] == list(range(6))
    assert [asked.is_open(one) for one in evaluations] == [False] * 3 + [True] + [False] * 2
    assert [asked.is_too_early(one) for one in evaluations] == [False] * 5 + [True]


def test_nothing_that_is_trained_of_a_skipped_step_counts_until_the_work_is_void() -> None:
    asked = versions(staleness=0)
    asked.skipping = 3
    assert asked.is_over(mb(0, 3)) and not asked.is_open(mb(0, 3))
    assert not asked.is_over(mb(0, 4)) and not asked.is_over(MicrobatchId(3, 0, True))
    asked.void()
    assert asked.is_open(mb(0, 3))


def test_a_gradient_that_is_added_voids_the_round_of_its_step_and_no_other() -> None:
    asked = versions(staleness=1)
    asked.reducing.begin(Prepare(1, 3, 7, ((ME, (0,)),), (), 10))
    assert not asked.added(mb(1, 4)) and asked.reducing.round(3) is not None
    assert asked.added(mb(1, 3)) == [DropRound(3, 7)]
    assert not asked.owned_anew(mb(1, 3)), "it is void already"


def test_weights_gradients_are_due_before_what_another_step_gives() -> None:
    asked = versions(staleness=1)
    assert asked.is_due_before(mb(5, 3), mb(0, 4))
    assert not asked.is_due_before(mb(0, 4), mb(5, 3))
    assert not asked.is_due_before(mb(0, 3), mb(5, 3))
