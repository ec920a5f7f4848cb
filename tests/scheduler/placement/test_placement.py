"""Placements: as good as the best that there is where all can be tried, and better than chance."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmrt.lab.placing.regions import regions
from swarmrt.scheduler.placement.bound import bound
from swarmrt.scheduler.placement.dtfm import dtfm
from swarmrt.scheduler.placement.facts import Job, Network, Placement, StageCost
from swarmrt.scheduler.placement.losses import single_losses, survivable
from swarmrt.scheduler.placement.search import CannotPlace, plan
from swarmrt.scheduler.placement.step_time import Timing
from tests.scheduler.placement.instances import small


def least_s(job: Job, network: Network) -> float:
    """Return the shortest step of all placements."""
    timing, stages = Timing(job, network), range(len(job.stages))
    peers = range(len(network.names))

    def placement(serves: tuple[int, ...]) -> Placement:
        return tuple(tuple(p for p in peers if serves[p] == stage) for stage in stages)

    every = itertools.product(range(-1, len(job.stages)), repeat=len(network.names))
    return min(timing.of(placement(serves)).total_s for serves in every)


@pytest.mark.parametrize("seed", range(12))
def test_the_best_of_all_is_found(seed: int) -> None:
    job, network = small(seed)
    assert plan(job, network, most_tries=20_000).time.total_s == pytest.approx(
        least_s(job, network), rel=1e-9
    )


@pytest.mark.parametrize(("spread", "gain"), [(1.0, 1.7), (4.0, 1.45)])
def test_regions_gain_over_chance_and_over_dtfm(spread: float, gain: float) -> None:
    job, network = regions(0, spread)
    found = plan(job, network, most_tries=24_000)
    assert found.gain >= gain
    theirs = Timing(job, network).of(dtfm(job, network, generations=20)).total_s
    assert found.time.total_s <= theirs


def test_who_costs_more_than_it_brings_is_left_out() -> None:
    """Eight of 64 have 20 Mb/s, one in each stage: leaving out a single one helps nobody."""
    job, network = regions(0)
    narrow = set(range(0, 64, 9))
    bytes_per_s = tuple(
        tuple(20e6 / 8 if {p, q} & narrow else network.bytes_per_s[p][q] for q in range(64))
        for p in range(64)
    )
    found = plan(job, replace(network, bytes_per_s=bytes_per_s), most_tries=12_000)
    assert narrow <= set(found.left_out)
    kept = plan(
        job,
        replace(network, bytes_per_s=bytes_per_s),
        most_tries=6_000,
        may_leave_out=False,
    )
    assert not kept.left_out
    assert kept.time.total_s > 1.3 * found.time.total_s


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 20), st.integers(3, 7), st.integers(1, 3), st.booleans())
def test_each_stage_is_served_by_who_has_the_memory(
    seed: int, peers: int, stages: int, may_leave_out: bool
) -> None:
    job, network = small(seed, peers, stages)
    memory = tuple(random.Random(seed).choices([0.5e9, 1e9, 8e9], k=peers))
    network = replace(network, memory_bytes=memory)
    try:
        found = plan(job, network, most_tries=2_000, may_leave_out=may_leave_out)
    except CannotPlace:
        assert sum(size >= 1e9 for size in memory) < stages
        return
    served = [peer for its in found.placement for peer in its]
    assert all(found.placement) and len(set(served)) == len(served)
    assert all(memory[peer] >= 1e9 for peer in served)
    assert sorted([*served, *found.left_out]) == list(range(peers))
    assert plan(job, network, most_tries=2_000, may_leave_out=may_leave_out) == found


def test_what_fits_nobody_is_said() -> None:
    job, network = small(0)
    large = Job((StageCost(0.1, 1e6, 1e6, 9e9), *job.stages[1:]), microbatches=4)
    with pytest.raises(CannotPlace, match=r"stage 0 needs 9.0 GB, and the largest peer has 8.0"):
        plan(large, network)
    with pytest.raises(CannotPlace, match="3 stages need as many peers; there are 2"):
        plan(*small(0, peers=2))


def equal(peers: int, bytes_per_s: float = 1e9) -> Network:
    names = tuple(f"p{number}" for number in range(peers))
    square = ((1.0,) * peers,) * peers
    delay_s, widths = (
        tuple(tuple(value * one for one in row) for row in square) for value in (0.01, bytes_per_s)
    )
    return Network(names, (1.0,) * peers, (8e9,) * peers, delay_s, widths)


def test_the_parts_of_a_step() -> None:
    """Two stages of two: computed by hand."""
    job = Job((StageCost(0.5, 1e6, 1e8, 1), StageCost(0.25, 1e6, 2e8, 1)), microbatches=8)
    time = Timing(job, equal(4)).of(((0, 1), (2, 3)))
    assert time.compute_s == pytest.approx(8 / 4)
    assert time.fill_s == pytest.approx(0.5 + 0.25 + 2 * (0.01 + 0.001))
    assert time.reduce_s == pytest.approx(2 * (0.01 + 0.1))
    assert (time.slowest_stage, time.slowest_reduce) == (0, 1)
    assert time.total_s == pytest.approx(time.compute_s + time.fill_s + time.reduce_s)
    overlapped = Timing(replace(job, overlaps=True), equal(4)).of(((0, 1), (2, 3)))
    assert overlapped.total_s == pytest.approx(time.compute_s)


def test_the_bound_says_what_it_is_by() -> None:
    job = Job((StageCost(0.5, 1e6, 0, 1), StageCost(0.2, 1e6, 0, 1)), microbatches=8)
    computing = bound(job, equal(3), ((0, 1), (2,)))
    assert computing.microbatches_per_s == pytest.approx(4.0)
    assert computing.by == "the computing of stage 0"
    links = bound(job, equal(3, bytes_per_s=1e6), ((0, 1), (2,)))
    assert links.microbatches_per_s == pytest.approx(2.0)
    assert links.by == "the links from stage 0 to stage 1"


def test_the_answer_to_each_loss_is_known() -> None:
    job = Job((StageCost(0.5, 1e6, 1e6, 1),) * 2, microbatches=8)
    placement = ((0, 1, 2), (3,))
    assert survivable(placement) == 0
    losses = {loss.peer: loss for loss in single_losses(job, equal(4), placement)}
    assert losses[3].move is not None and losses[3].move[1] == 1
    assert losses[3].share == pytest.approx(1.0)
    assert losses[0].move is None  # the other stage is as slow
    idle = {loss.peer: loss for loss in single_losses(job, equal(5), ((0, 1), (2, 3)))}
    assert idle[0].move == (4, 0)  # and not who is lost
