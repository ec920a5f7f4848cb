"""Whole swarms of cores in which computations fail: nothing is lost by it, and nothing twice."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from swarmrt.errors import RunError
from swarmrt.ids import MicrobatchId
from swarmrt.sim.swarm.world import World
from tests.observe.test_audit import WAYS, audited


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
        peer.computing.fails = fails
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

    victim.computing.fails = fails
    world.run(limit_s=300)
    assert tried and world.disk.recoveries["released"]


@pytest.mark.parametrize("replicas", [[1, 1, 1], [2, 2, 2]], ids=str)
def test_a_microbatch_that_fails_everywhere_ends_the_run_with_its_reason(
    replicas: list[int],
) -> None:
    world = World(replicas, seed=1, steps=4)
    for peer in world.peers.values():
        stage = peer.settings.stage
        peer.computing.fails = lambda what, mb, stage=stage: (stage, mb) == (1, MicrobatchId(2, 3))  # type: ignore[misc]
    with pytest.raises(RunError, match=r"microbatch 2\.3 cannot be computed at stage 1.*simulated"):
        world.run(limit_s=300)
    assert len(world.disk.steps) == 2


@pytest.mark.parametrize("replicas", [[1, 1, 1], [2, 3, 2]], ids=str)
@pytest.mark.parametrize("way", WAYS, ids=["", "stale", "averaging"])
@pytest.mark.parametrize("seed", range(5))
def test_step_whose_gradient_is_not_finite_wherever_it_is_computed_is_skipped(
    replicas: list[int], way: dict[str, Any], seed: int, tmp_path: Path
) -> None:
    """The data of microbatch 2.3 are at fault. All the other steps count, and none twice."""
    world = World(replicas, seed, steps=6, **way, not_finite="skip")
    for peer in world.peers.values():
        stage = peer.settings.stage
        bad = (1, MicrobatchId(2, 3))
        peer.computing.fails = lambda what, mb, stage=stage, bad=bad: (
            what != "forward" and (stage, mb) == bad
        )  # type: ignore[misc]
        peer.computing.fails_by_value = True
    world.run(limit_s=600)
    assert [report.version for report in world.disk.steps if report.skipped] == [3]
    assert [report.version for report in world.disk.steps] == [1, 2, 3, 4, 5, 6]
    assert all(len(peer.history) == 6 for peer in world.peers.values())
    assert world.disk.recoveries["skipped"] == 1
    result = audited(json.loads(json.dumps(world.log())), tmp_path)
    assert result.passed, result.violations


def test_newcomer_and_a_trainer_that_is_killed_get_over_a_skipped_step() -> None:
    for seed in range(12):
        world = World([2, 2], seed, steps=8, checkpoint_every=1, not_finite="skip")
        for peer in world.peers.values():
            peer.computing.fails = lambda what, mb: (
                what == "backward" and mb.step == 3 and not mb.held_out
            )
            peer.computing.fails_by_value = True
        world.run_until(3)
        world.spawn(1)
        world.clock.after(0.4 * seed, world.kill_trainer)
        world.clock.after(0.4 * seed + 2.0, world.resume_trainer)
        world.run(limit_s=900)
        reported = {report.version for report in world.disk.steps}
        assert reported | {4} == set(range(1, 9)), "a trainer may die before it says that it ended"
