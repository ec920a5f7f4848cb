"""Checkpoints of odd models: what is written is read, with every tensor as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.data import open_data
from swarmrt.errors import CheckpointError
from swarmrt.model.layout import layout_from
from swarmrt.model.partition import resolve
from swarmrt.model.stage import Stage
from swarmrt.runtime.state.snapshot import read_snapshot, snapshot_bytes, write_snapshot
from swarmrt.runtime.trainer.trial import try_model
from tests.model.odd_models import GOOD, VOCAB, WIDTH, Layers


class Turned(nn.Module):
    """A layer with a constant table, as rotary positions keep theirs as complex numbers."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("table", torch.arange(3.0).to(dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def turned(dtype: str) -> Layers:
    middle = Turned(getattr(torch, dtype))
    return [nn.Embedding(VOCAB, WIDTH), middle, nn.Linear(WIDTH, VOCAB)], loss


def run(builder: Callable[..., Any], stages: int = 3, **options: Any) -> RunConfig:
    kind = f"{builder.__module__}:{builder.__name__}"
    config = {
        "model": {"kind": kind, "sequence": 6, "options": options},
        "stages": {"count": stages},
        "batch": {"microbatch": 2},
    }
    return resolve(parse_config(config, "test"))


def check_states(config: RunConfig) -> None:
    """Check that each stage's state is read as it was written, and is as another one expects."""
    for index in range(config.num_stages):
        stage = Stage(config, index)
        state, layout = stage.live_state(), layout_from(config, index)
        data = write_snapshot(index, 3, state)
        assert len(data) == snapshot_bytes(index, 3, layout.tensors)
        read = read_snapshot(data, "it")
        layout.check(read, stage.digest(), "it")
        for name, tensor in state.items():
            ours, theirs = (
                t.contiguous().flatten().view(torch.uint8) for t in (tensor, read[name])
            )
            assert tensor.dtype == read[name].dtype and torch.equal(ours, theirs), name


@pytest.mark.parametrize("builder", GOOD)
def test_states_of_odd_models_are_read_as_they_were_written(builder: Callable[[], Any]) -> None:
    check_states(run(builder))


@pytest.mark.parametrize("dtype", ["complex64", "uint16", "int8", "float8_e4m3fn", "bool"])
def test_constant_tables_keep_their_dtype_and_values(dtype: str) -> None:
    config = run(turned, dtype=dtype)
    table = Stage(config, 1).live_state()["model.layers.1.table"]
    assert table.dtype == getattr(torch, dtype)
    check_states(config)


def test_a_model_that_no_checkpoint_can_hold_is_refused_before_it_is_trained() -> None:
    config = run(turned, dtype="complex128")
    with pytest.raises(CheckpointError, match=r"layers\.1\.table is of torch\.complex128"):
        try_model(config, open_data(config))
