"""Islands in float64: what each does between two rounds is a synchronous run of its own, and a
round is the outer step of DiLoCo on what they have moved (Douillard et al. 2023)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.ids import MicrobatchId
from swarmrt.model.stage import Stage
from tests.model.test_averaged import ADAMW, SGD, anchor, data, mean, near, run

LOCAL_BATCH, OWN_STEPS = 2, 3
SHARE = LOCAL_BATCH * OWN_STEPS  # microbatches of an island between two rounds
STEADY = {**ADAMW, "warmup_steps": 0, "schedule": "constant", "clip_norm": 0.0}

Island = list[Stage]  # a replica of each stage


def island_of(config: RunConfig) -> Island:
    return [Stage(config, stage) for stage in range(config.num_stages)]


def compute(island: Island, microbatch: MicrobatchId, number: int) -> None:
    """Forward and backward through the replicas of one island, of the data of that number."""
    inputs, targets = data(number)
    passed = []
    for stage in island:
        forwarded = stage.forward(microbatch, inputs, targets if stage.is_last else None)
        passed.append(forwarded)
        inputs = forwarded.output if forwarded.output is not None else inputs
    gradient: Tensor | None = None
    for stage, forwarded in zip(reversed(island), reversed(passed), strict=True):
        gradient = stage.backward(forwarded, gradient)


def commit(config: RunConfig, islands: list[Island]) -> None:
    """Make the next version of each stage, of what its replicas in all islands have."""
    for replicas in zip(*islands, strict=True):
        reduced = mean(config, list(replicas))
        assert len({stage.step(reduced, 1.0) for stage in replicas}) == 1


def train(
    strategy: str, optimizer: dict[str, Any], *, islands: int, rounds: int, **averaging: Any
) -> list[Tensor]:
    """Return the anchors of islands, each of which has a contiguous share of each step's data."""
    per_step = islands * SHARE
    settings = {"local_batch": LOCAL_BATCH, "islands": islands, **averaging}
    config = run(strategy, optimizer, stages=2, microbatches=per_step, steps=rounds, **settings)
    trained = [island_of(config) for _ in range(islands)]
    for step in range(rounds):
        for index in range(per_step):
            microbatch = MicrobatchId(step, index)
            compute(trained[index // SHARE], microbatch, microbatch.position(per_step))
        commit(config, trained)
    return [anchor(stage) for stage in trained[0]]


def synchronous(optimizer: dict[str, Any], *, first: int, steps: int) -> list[Tensor]:
    """Return the weights of a synchronous run in steps of `local_batch` microbatches, on the data
    from that number on."""
    config = run("sync", optimizer, stages=2, microbatches=LOCAL_BATCH, steps=steps or 1)
    alone = island_of(config)
    for step in range(steps):
        for index in range(LOCAL_BATCH):
            microbatch = MicrobatchId(step, index)
            compute(alone, microbatch, first + microbatch.position(LOCAL_BATCH))
        commit(config, [alone])
    return [anchor(stage) for stage in alone]


@pytest.mark.parametrize("optimizer", [SGD, STEADY], ids=["sgd", "adamw"])
def test_one_island_with_a_replica_of_each_stage_is_a_synchronous_run(
    optimizer: dict[str, Any],
) -> None:
    """It is one in steps of `local_batch` microbatches, where nothing is late."""
    apart = train("async", optimizer, islands=1, rounds=3)
    together = synchronous(optimizer, first=0, steps=3 * OWN_STEPS)
    assert all(map(near, apart, together))


@pytest.mark.parametrize("optimizer", [SGD, STEADY], ids=["sgd", "adamw"])
@pytest.mark.parametrize("outer_lr", [1.0, 0.7])
def test_round_makes_the_outer_step_of_diloco_on_synchronous_runs(
    optimizer: dict[str, Any], outer_lr: float
) -> None:
    outer = {"outer_lr": outer_lr, "outer_momentum": 0.0}
    found = train("diloco", optimizer, islands=3, rounds=1, **outer)
    begun = synchronous(optimizer, first=0, steps=0)
    alone = [synchronous(optimizer, first=i * SHARE, steps=OWN_STEPS) for i in range(3)]
    for stage, start in enumerate(begun):
        moved = torch.stack([weights[stage] - start for weights in alone]).mean(dim=0)
        assert near(found[stage], start + outer_lr * moved)
        assert not near(found[stage], start)


def test_diloco_between_islands_with_plain_outer_steps_is_averaging() -> None:
    plain = train("async", STEADY, islands=2, rounds=4)
    outer = train("diloco", STEADY, islands=2, rounds=4, outer_lr=1.0, outer_momentum=0.0)
    assert all(map(torch.equal, plain, outer))
