"""A stage that moves to another device: nothing of it stays behind, and nothing is lost."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch

from swarmrt.config import RunConfig
from swarmrt.ids import MicrobatchId
from swarmrt.model.partition import resolve
from swarmrt.model.stage import Stage

KINDS: list[dict[str, Any]] = [
    {},
    {"model": {"dtype": "bfloat16"}},
    {"optimizer": {"staleness": 1}},
    {"optimizer": {"kind": "muon"}},
    {"averaging": {"strategy": "async", "local_batch": 1}},
]


def built(changes: dict[str, Any]) -> tuple[RunConfig, Stage]:
    """Return the only stage of a small model."""
    base: dict[str, Any] = {
        "model": {"layers": 2, "width": 16, "heads": 2, "kv_heads": 1, "sequence": 8, "vocab": 32},
        "stages": {"count": 1},
        "batch": {"microbatch": 1, "microbatches": 2},
    }
    for section, values in changes.items():
        base[section] = base.get(section, {}) | values
    config = resolve(RunConfig.model_validate(base))
    return config, Stage(config, 0)


def train(stage: Stage, step: int) -> str:
    """Do a step with two microbatches; return the digest."""
    for index in range(2):
        mb = MicrobatchId(step, index)
        tokens = torch.arange(index, index + 8).remainder(32).view(1, 8)
        stage.backward(stage.forward(mb, tokens, tokens), None)
    stage.contribute(step)
    return stage.step(stage.contribution(step) / 16, 1.0)


def held(stage: Stage) -> list[weakref.ref[Any]]:
    """Return what keeps its memory: flat buffers, parameters, and the layers."""
    weights = stage._weights
    buffers = [weights.newest.flat.values, weights.masters, weights.gradients(stage.version)]
    layers = list(weights.all_layers())
    parameters = [parameter for each in layers for parameter in each.parameters()]
    return [weakref.ref(thing) for thing in (*buffers, *layers, *parameters)]


@pytest.mark.parametrize("changes", KINDS)
def test_nothing_stays_behind_and_it_goes_on_as_if_it_had_not_moved(
    changes: dict[str, Any],
) -> None:
    _, stays = built(changes)
    _, moves = built(changes)
    for step in range(2):
        assert train(stays, step) == train(moves, step)
    left = held(moves)
    mb = MicrobatchId(2, 0)
    tokens = torch.zeros(1, 8, dtype=torch.int64)
    moves.backward(moves.forward(mb, tokens, tokens), None)  # which no version has
    state = moves.state()
    moves.move("cpu")
    assert left and not [thing for thing in left if thing() is not None]
    assert moves.version == 2
    for name, tensor in moves.state().items():
        assert torch.equal(tensor, state[name]), name
    if "averaging" not in changes:  # there it begins like a newcomer, with no moments of its own
        assert train(stays, 2) == train(moves, 2)


def test_where_it_has_no_room_it_stays() -> None:
    _, stage = built({})
    train(stage, 0)
    digest = stage.digest()
    with pytest.raises((RuntimeError, AssertionError)):
        stage.move("cuda:63" if torch.cuda.is_available() else "cuda")
    assert stage.device.type == "cpu" and stage.digest() == digest
    train(stage, 1)
