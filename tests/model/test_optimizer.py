import math

import pytest
import torch
from torch import nn

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.model.optimizer import clip_scale, learning_rate, make_optimizer
from swarmrt.model.pieces import is_decayed


def run(**optimizer: object) -> RunConfig:
    return parse_config({"run": {"steps": 101}, "optimizer": {"lr": 1.0, **optimizer}}, "test")


def test_warm_up_is_linear_and_reaches_the_peak() -> None:
    rates = [learning_rate(run(warmup_steps=4, schedule="constant"), step) for step in range(6)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_last_step_has_the_final_fraction(schedule: str) -> None:
    config = run(warmup_steps=20, schedule=schedule, final_lr_fraction=0.1)
    rates = [learning_rate(config, step) for step in range(120)]
    assert max(rates) == rates[20] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1) == rates[119]
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_a_run_shorter_than_its_warm_up_has_rates() -> None:
    config = parse_config({"run": {"steps": 3}, "optimizer": {"warmup_steps": 20}}, "test")
    assert all(0 < learning_rate(config, step) <= config.optimizer.lr for step in range(30))


def test_clipping_bounds_the_norm_only_from_above() -> None:
    assert clip_scale(4.0, 1.0) == 0.25
    assert clip_scale(0.5, 1.0) == clip_scale(9.0, 0.0) == clip_scale(0.0, 1.0) == 1.0
    assert math.isnan(clip_scale(math.nan, 1.0))


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_the_update_does_not_depend_on_how_parameters_are_cut(kind: str) -> None:
    config = run(kind=kind, momentum=0.9)
    values, gradient = torch.randn(2, 1003, generator=torch.Generator().manual_seed(0))
    results = []
    for sizes in ([1003], [5, 998], [13, 500, 490]):
        pieces = [nn.Parameter(piece.clone()) for piece in values.split(sizes)]
        optimizer = make_optimizer(config, pieces, [])
        for _ in range(3):
            for piece, grad in zip(pieces, gradient.split(sizes), strict=True):
                piece.grad = grad.clone()
            optimizer.step()
        results.append(torch.cat([piece.detach() for piece in pieces]))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_only_matrices_are_decayed() -> None:
    matrix, vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    assert is_decayed(matrix) and not is_decayed(vector)
    optimizer = make_optimizer(run(weight_decay=0.5), [matrix], [vector])
    matrix.grad, vector.grad = torch.zeros(2, 2), torch.zeros(2)
    optimizer.step()
    assert (matrix == 0.5).all() and (vector == 1.0).all()
