"""The mean of several runs' weights, what fits, and whom a text takes in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from swarmrt.config_toml import parse_config
from swarmrt.errors import CheckpointError
from swarmrt.model.merging import (
    Member,
    check_one_model,
    choose_greedily,
    merged,
    other_starts,
)

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def member(name: str, weight: float = 1.0, config: Any = None, **tensors: Tensor) -> Member:
    return Member(name, parse_config(config or {}, "the test"), 10, tensors, weight)


def mean(*members: Member) -> Tensor:
    ((_, values),) = merged(members)
    return values


def noise(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(40, 7, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=20)
@given(weights=st.lists(st.floats(1e-3, 1e9), min_size=2, max_size=4))
def test_a_run_with_itself_is_itself_to_the_bit(dtype: torch.dtype, weights: list[float]) -> None:
    """The tensor has one other value, so that it is computed, and a zero that has a sign."""
    values = noise(0, dtype)
    values[0, 0] = -0.0
    other = values.clone()
    other[-1, -1] += 1
    members = [member(str(i), weight, w=values) for i, weight in enumerate(weights)]
    assert torch.equal(mean(*members), values)
    found = mean(*members, member("other", sum(weights), w=other))
    assert found.dtype == dtype and not torch.equal(found, values)
    same = torch.ones_like(values, dtype=torch.bool)
    same[-1, -1] = False
    assert torch.equal(found[same], values[same]) and found[0, 0].signbit()


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_shares_of_the_mean(dtype: torch.dtype) -> None:
    values, weights = [noise(seed, dtype) for seed in range(3)], [960.0, 20.0, 3.5]
    found = mean(*[member("", weight, w=w) for weight, w in zip(weights, values, strict=True)])
    exact = torch.zeros(40, 7, dtype=torch.float64)
    for one, weight in zip(values, weights, strict=True):
        exact += one.double() * (weight / sum(weights))
    # computed in float64, rounded once
    torch.testing.assert_close(found, exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-15)


def test_counts_and_masks_are_not_averaged() -> None:
    mask = torch.tensor([0.0, -math.inf])
    assert torch.equal(mean(member("a", w=mask), member("b", w=mask.clone())), mask)
    one, two = torch.tensor([1, 2]), torch.tensor([1, 3])
    assert torch.equal(mean(member("a", w=one), member("b", w=one.clone())), one)
    with pytest.raises(CheckpointError, match=r"w is of torch\.int64, and not the same"):
        mean(member("a", w=one), member("b", w=two))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_named(bad: float) -> None:
    spoilt = noise(1)
    spoilt[3, 3] = bad
    with pytest.raises(CheckpointError, match="runs/b: w has values that are not finite"):
        mean(member("runs/a", w=noise(0)), member("runs/b", w=spoilt))


@pytest.mark.parametrize(
    ("config", "tensors", "expected"),
    [
        ({"model": {"width": 64}}, {}, r"model\.width is 64, and 128 there"),
        ({"model": {"heads": 8, "kv_heads": 4}}, {}, r"heads is 8, and 4 there; model\.kv_heads"),
        ({"model": {"vocab": 300}}, {}, r"model\.vocab is 300"),
        ({"model": {"layers": 2}}, {}, r"model\.layers is 2"),
        ({}, {"w": torch.ones(2, 3)}, r"w is \[2, 3\] float32, and \[2\] float32 there"),
        ({}, {"w": torch.ones(2, dtype=torch.float64)}, r"w is \[2\] float64"),
        ({}, {"v": torch.ones(2)}, "it has a v"),
        ({}, {"w": None}, "it has no w"),
    ],
)
def test_another_model_is_refused(
    config: dict[str, Any], tensors: dict[str, Any], expected: str
) -> None:
    """Heads may change without the shape of any tensor."""
    its = {name: t for name, t in ({"w": torch.ones(2)} | tensors).items() if t is not None}
    with pytest.raises(
        CheckpointError, match=f"runs/b has another model than runs/a: .*{expected}"
    ):
        check_one_model([member("runs/a", w=torch.ones(2)), member("runs/b", config=config, **its)])


def test_what_is_of_training_alone_may_differ() -> None:
    other = {
        "model": {"dropout": 0.1, "recompute": True},
        "stages": {"layers": [6]},
        "optimizer": {"lr": 0.1},
        "data": {"source": "/another"},
    }
    members = [member("a", w=torch.ones(2)), member("b", config=other, w=torch.zeros(2))]
    check_one_model(members)
    assert other_starts(members) == []
    (found,) = other_starts([*members, member("c", config={"run": {"seed": 3}})])
    assert found == "c has another start than a: run.seed is 3, and 0 there"


def distance_to(target: Tensor) -> Any:
    """Return a loss of which the least is at the target."""

    def loss_of(chosen: Sequence[Member]) -> float:
        return float((mean(*chosen) - target).square().mean())

    return loss_of


def test_a_run_that_makes_the_merge_worse_is_refused() -> None:
    """The greedy soup of Wortsman et al. 2022: two that lie around the target on either side, and
    random weights."""
    target, aside = noise(0), 0.1 * noise(1)
    near = member("near", w=target + aside)
    other = member("other", w=target - 1.1 * aside)
    random = member("random", w=noise(2))
    verdicts = choose_greedily([random, other, near], distance_to(target))
    assert [(v.member.name, v.is_taken) for v in verdicts] == [
        ("near", True),
        ("other", True),
        ("random", False),
    ]
    first, second, refused = verdicts
    assert first.together is None and first.worse_by is None
    assert second.worse_by is not None and second.worse_by < 0
    assert refused.before == second.together, "a run is measured against those that were taken"
    assert refused.together is not None and refused.before is not None
    assert refused.worse_by == refused.together - refused.before > 0


def test_a_twin_is_no_harm() -> None:
    one = member("one", w=noise(0))
    verdicts = choose_greedily([one, member("twin", w=noise(0))], distance_to(noise(1)))
    assert [verdict.is_taken for verdict in verdicts] == [True, True]
    assert verdicts[1].worse_by == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_takes_no_part(bad: float) -> None:
    losses = {"a": bad, "b": 2.0, "a b": 1.0}
    members = [member("a"), member("b")]

    def loss_of(chosen: Sequence[Member]) -> float:
        return losses[" ".join(one.name for one in chosen)]

    first, refused = choose_greedily(members, loss_of)
    assert first.member.name == "b" and first.is_taken
    assert not refused.is_taken and refused.worse_by is None
    losses["b"] = bad
    with pytest.raises(CheckpointError, match="no run has a finite loss"):
        choose_greedily(members, loss_of)
