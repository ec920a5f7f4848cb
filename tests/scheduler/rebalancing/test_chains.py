"""Chains of moves, beside what looking at every assignment finds."""

from __future__ import annotations

import itertools
import random

import pytest

from swarmrt.scheduler.rebalancing.assignment import Assignment
from swarmrt.scheduler.rebalancing.chains import find_chain
from swarmrt.scheduler.rebalancing.raising import raise_poorest
from swarmrt.scheduler.rebalancing.settings import Settings
from swarmrt.scheduler.rebalancing.swarm import Stage

FREE = Settings(hysteresis=0.0, move_cost=0.0, longest_chain=8)


def drawn(seed: int, speeds: list[float], stages: int) -> tuple[Assignment, list[list[int]]]:
    """Peers that hold two states each, and serve one of them."""
    rng = random.Random(seed)
    assignment = Assignment([Stage()] * stages, speeds)
    held = []
    for number in range(len(speeds)):
        states = rng.sample(range(stages), 2)
        assignment.enter(number, states[0], states)
        held.append(states)
    return assignment, held


def best(speeds: list[float], held: list[list[int]], stages: int) -> float:
    rates = []
    for choice in itertools.product(*held):
        served = [0.0] * stages
        for number, stage in enumerate(choice):
            served[stage] += speeds[number]
        rates.append(min(served))
    return max(rates)


@pytest.mark.parametrize("seed", range(60))
def test_equal_peers_reach_the_optimum(seed: int) -> None:
    """Augmenting paths find a maximum (Berge 1957), here of an orientation's least in-degree."""
    stages = 3 + seed % 3
    speeds = [1.0] * (2 * stages + seed % 2)
    assignment, held = drawn(seed, speeds, stages)
    raise_poorest(assignment, FREE)
    assert assignment.least() == best(speeds, held, stages)


def test_unequal_peers_come_near_it() -> None:
    shares = []
    for seed in range(40):
        rng = random.Random(seed)
        speeds = [rng.uniform(1, 8) for _ in range(9)]
        assignment, held = drawn(seed, speeds, 3)
        raise_poorest(assignment, FREE)
        shares.append(assignment.least() / best(speeds, held, 3))
    assert max(shares) <= 1 + 1e-9
    assert sum(shares) / len(shares) > 0.96


def test_the_shortest_chain_is_taken() -> None:
    assignment = Assignment([Stage()] * 3, [1.0] * 8)
    for number, (place, reach) in enumerate(
        [(0, {0}), (0, {0, 1}), (0, {0, 2}), (0, {0}), (1, {1, 2}), (1, {1}), (1, {1}), (2, {2})]
    ):
        assignment.enter(number, place, reach)
    chain = find_chain(assignment, 2, 2.0, 6)
    assert [(move.peer, move.from_place, move.to_stage) for move in chain] in (
        [(2, 0, 2)],
        [(4, 1, 2)],
    )


def test_moves_that_gain_nothing_in_the_end_are_taken_back() -> None:
    """A move could help one of two poor stages, and the swarm would not be faster for it."""
    assignment = Assignment([Stage()] * 3, [1.0] * 5)
    for number, (place, reach) in enumerate([(0, {0, 1}), (0, {0}), (0, {0}), (1, {1}), (2, {2})]):
        assignment.enter(number, place, reach)
    assert raise_poorest(assignment, FREE) == []
    assert assignment.counts == [3, 1, 1]
    assert assignment.place(0) == 0
