"""Whole swarms of cores in which computations fail: nothing is lost by it, and nothing twice."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from swarmrt.errors import RunError
from swarmrt.ids import MicrobatchId
from swarmrt.sim.world import World
from tests.test_observe_audit import audited


def failing(world: World, seed: int, share: float, most: int) -> list[str]:
    """Each computation fails with this chance, each microbatch at most once at one peer alone."""
    rng, failed, told = random.Random(f"failures {seed}"), set[MicrobatchId](), list[str]()

    def fails(what: str, microbatch: MicrobatchId) -> bool:
        if len(told) >= most or microbatch in failed or rng.random() > share:
            return False
        failed.add(microbatch)
        told.append(what)
        return True

    for peer in world.peers.values():
        peer.fails = fails
    return told


@pytest.mark.parametrize("replicas", [[1, 1, 1], [2, 3, 2], [2, 1, 2]], ids=str)
@pytest.mark.parametrize("staleness", [0, 1])
def test_what_fails_once_is_computed_again(replicas: list[int], staleness: int) -> None:
    kinds = set[str]()
    for seed in range(20):
        world = World(replicas, seed, steps=5, staleness=staleness)
        told = failing(world, seed, share=0.1, most=10)
        world.run(limit_s=300)
        assert told and len(world.disk.steps) == 5
        kinds |= set(told)
    assert kinds == {"forward", "backward", "weights"}


@pytest.mark.parametrize("staleness", [0, 1])
def test_the_audit_knows_what_became_of_a_computation_that_failed(
    staleness: int, tmp_path: Path
) -> None:
    for seed in range(5):
        world = World([2, 2, 2], seed, steps=5, staleness=staleness)
        told = failing(world, seed, share=0.2, most=20)
        world.run(limit_s=300)
        result = audited(json.loads(json.dumps(world.log())), tmp_path / str(seed))
        assert len(told) == 20 and result.passed, result.violations


def test_a_replica_that_always_fails_stops_nobody() -> None:
    world = World([1, 2, 1], seed=4, steps=4)
    victim = world.peers[world.live(1)[0]]
    tried: list[MicrobatchId] = []

    def fails(what: str, microbatch: MicrobatchId) -> bool:
        tried.append(microbatch)
        return True

    victim.fails = fails
    world.run(limit_s=300)
    assert tried and world.disk.recoveries["released"]


@pytest.mark.parametrize("replicas", [[1, 1, 1], [2, 2, 2]], ids=str)
def test_a_microbatch_that_fails_everywhere_ends_the_run_with_its_reason(
    replicas: list[int],
) -> None:
    world = World(replicas, seed=1, steps=4)
    for peer in world.peers.values():
        stage = peer.settings.stage
        peer.fails = lambda what, mb, stage=stage: (stage, mb) == (1, MicrobatchId(2, 3))  # type: ignore[misc]
    with pytest.raises(RunError, match=r"microbatch 2\.3 cannot be computed at stage 1.*simulated"):
        world.run(limit_s=300)
    assert len(world.disk.steps) == 2
