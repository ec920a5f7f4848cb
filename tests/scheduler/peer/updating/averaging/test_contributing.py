"""Rounds of replicas that make steps of their own: what a peer gives is fixed before they begin."""

from __future__ import annotations

from swarmrt.messages import (
    Applied,
    Apply,
    Forward,
    Hail,
    Part,
    Prepare,
    Prepared,
)
from swarmrt.scheduler.events import (
    Contributed,
    GradientCombined,
    PartSummed,
    Stepped,
)
from swarmrt.scheduler.instructions import (
    CombineParts,
    Contribute,
    DropRound,
    GradientPart,
    KeepPart,
    RunForward,
    Send,
    StepOptimizer,
    SumPart,
)
from swarmrt.scheduler.local_work import LocalWork
from tests.scheduler.peer_core import ME, TRAINER, A, Peer, mb, sent

SLICE = Send(A, Part(1, 0, 7, 0, False), GradientPart(0, 7, 0, 2, False))
SUM = SumPart(0, 7, 1, 2, (A, ME), 2)


def prepare(number: int = 7, mine: tuple[int, ...] = (1,), *, skip: bool = False) -> Prepare:
    roster = ((A, ()), (ME, ())) if skip else ((A, (0,)), (ME, mine))
    return Prepare(1, 0, number, roster, (), 0 if skip else 2, skip)


def accumulated(local_from: int = 0) -> Peer:
    """Return a peer that has accumulated microbatch 1 of step 0."""
    peer = Peer(staleness=1, fresh_steps=1, local_from=local_from, microbatches=2)
    peer.accumulate(mb(1))
    return peer


def in_round() -> Peer:
    """Return a peer that is in round 7."""
    peer = accumulated()
    peer.get(prepare())
    peer.feed(Contributed(0, 7))
    return peer


def test_round_begins_once_the_contribution_is_fixed() -> None:
    peer = accumulated()
    assert peer.get(prepare()) == [Contribute(0, 7)]
    assert peer.get(prepare()) == [], "a repeated word changes nothing"
    assert peer.feed(Contributed(0, 7)) == [SLICE]
    assert peer.get(Part(1, 0, 7, 1, False), A)[-1] == SUM


def test_parts_that_come_meanwhile_are_kept() -> None:
    peer = accumulated()
    peer.get(prepare())
    assert peer.get(Part(1, 0, 7, 1, False), A) == [KeepPart(A, 0, 7, 1, False)]
    assert peer.feed(Contributed(0, 7)) == [SLICE, SUM]


def test_steps_that_are_synchronous_have_no_contribution() -> None:
    peer = accumulated(local_from=1)
    assert peer.get(prepare()) == [SLICE]


def test_who_has_no_microbatch_contributes_nothing() -> None:
    peer = Peer(staleness=1, fresh_steps=1, local_from=0, microbatches=2)
    assert peer.get(prepare(mine=())) == []
    assert peer.get(Part(1, 0, 7, 1, False), A)[-1] == SumPart(0, 7, 1, 2, (A,), 2)


def test_newer_round_has_its_contribution_fixed_anew() -> None:
    peer = accumulated()
    peer.get(prepare())
    assert peer.get(prepare(8)) == [Contribute(0, 8)]
    assert peer.feed(Contributed(0, 7)) == [DropRound(0, 7)], "that one is void"
    [slice_] = peer.feed(Contributed(0, 8))
    assert isinstance(slice_, Send) and slice_.message == Part(1, 0, 8, 0, False)
    assert peer.get(prepare(7)) == [], "an older word comes late"


def test_round_under_way_is_void_when_a_newer_one_begins() -> None:
    peer = in_round()
    assert peer.get(prepare(8)) == [DropRound(0, 7), Contribute(0, 8)]


def test_gradient_that_is_added_meanwhile_voids_the_round() -> None:
    peer = accumulated()
    peer.get(prepare())
    peer.get(Part(1, 0, 7, 1, False), A)
    added = peer.accumulate(mb(0))
    assert DropRound(0, 7) in added, "the part that came for it goes"
    assert peer.feed(Contributed(0, 7)) == [DropRound(0, 7)]


def test_gradient_of_the_step_after_leaves_the_round_alone() -> None:
    peer = accumulated()
    peer.get(prepare())
    peer.accumulate(mb(0, step=1))
    assert peer.feed(Contributed(0, 7)) == [SLICE]


def test_skipped_step_has_no_contribution() -> None:
    peer = accumulated()
    peer.get(prepare())
    told = peer.get(prepare(8, skip=True))
    assert sent(told, Prepared) == [(TRAINER, Prepared(1, 0, 8, "", 0.0))]
    assert peer.feed(Contributed(0, 7)) == [DropRound(0, 7)]


def test_void_work_ends_the_wait_for_a_contribution() -> None:
    peer = accumulated()
    peer.get(prepare())
    peer.get(Hail(2))
    assert peer.feed(Contributed(0, 7)) == [DropRound(0, 7)]


def test_peer_waits_for_itself_until_it_has_contributed() -> None:
    peer = accumulated()
    peer.get(prepare())
    assert peer.core.seat_core.versions.waits_for == ME
    peer.feed(Contributed(0, 7))
    assert peer.core.seat_core.versions.waits_for == A


def test_version_is_made_of_the_mean_and_says_what_was_done_locally() -> None:
    peer = in_round()
    peer.get(Part(1, 0, 7, 1, False), A)
    peer.feed(PartSummed(0, 7, 1))
    assert peer.get(Part(1, 0, 7, 0, True), A)[-1] == CombineParts(0, 7, 2)
    assert sent(peer.feed(GradientCombined(0, 7, "m", 4.0)), Prepared)
    apply = Apply(1, 0, 7, 2.0, False)
    assert peer.get(apply) == [StepOptimizer(0, 7, 2.0, False)]
    local = LocalWork(3, 0.5, 0.01)
    applied = [(TRAINER, Applied(1, 1, "d", *local))]
    assert sent(peer.feed(Stepped(1, "d", local)), Applied) == applied
    assert sent(peer.get(apply), Applied) == applied, "asked again, it says the same"


def test_what_is_computed_goes_on_while_a_contribution_is_fixed() -> None:
    peer = accumulated()
    peer.get(prepare())
    assert RunForward(mb(0, step=1)) in peer.forward(mb(0, step=1))
    assert sent(peer.computed(mb(0, step=1)), Forward)


def test_own_steps_reckon_with_the_step_that_was_announced_last() -> None:
    """Not all steps have as many microbatches, where rounds come by a clock."""
    peer = Peer(staleness=1, fresh_steps=1, local_from=0, local_batch=1, microbatches=1000)
    versions = peer.core.seat_core.versions
    assert versions.own_step(mb(1, step=1), 0) == 1
    peer.accumulate(mb(1))
    peer.get(prepare())
    assert versions.own_step(mb(1, step=1), 0) == 0, "with 2 in a step there is nothing to come"
