"""Muon: its iteration, its steps, and which parameters it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.errors import ConfigError
from swarmrt.model import muon
from swarmrt.model.build import Slice, build_layers
from swarmrt.model.optimizer import rounding
from swarmrt.model.reference import train_reference
from swarmrt.model.stage import Stage

ROOT = Path(__file__).parents[2]
SHAPES = [(24, 24), (16, 96), (96, 16), (1, 8), (160, 448)]


def random(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_singular_vectors_stay_and_singular_values_come_near_1(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    """Singular values of at least a hundredth of the norm do (Jordan et al. 2024); smaller ones
    grow."""
    matrix = random(shape, dtype)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    made = muon.orthogonalized(matrix.clone())
    assert made.dtype == dtype and made.shape == matrix.shape
    inside = left.mT @ made @ right.mT
    found, large = inside.diagonal(), values / values.norm() > 0.01
    assert found[large].min() > 0.65 and found[large].max() < 1.22
    assert ((found > values / values.norm()) | large).all()
    torch.testing.assert_close(inside, found.diag(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("length", [1e-12, 1e12])
def test_the_length_of_a_gradient_does_not_matter(length: float) -> None:
    matrix = random((16, 96))
    one, other = muon.orthogonalized(matrix.clone()), muon.orthogonalized(matrix * length)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert not muon.orthogonalized(torch.zeros(4, 6)).any()


@pytest.mark.parametrize("shape", [(64, 64), (64, 256), (256, 64)])
def test_steps_are_as_long_as_adamws_whatever_the_shape(shape: tuple[int, int]) -> None:
    """Liu et al. 2025, equation 4: a root mean square of 0.2 at a rate of 1."""
    values, gradient, momentum = torch.zeros(shape), random(shape), torch.zeros(shape)
    muon.step(values, gradient, momentum, 0.5, 0.95, 0.0)
    assert float(values.square().mean().sqrt()) == pytest.approx(0.5 * 0.2, rel=0.15)


@pytest.mark.parametrize("rank", [1, 4, 64])
def test_what_is_rounded_stays_below_what_members_take_for_a_lie(rank: int) -> None:
    """The iteration makes rounding grow, most where a gradient is of low rank and weights are 0."""
    gradient = random((160, rank)) @ random((rank, 448))
    made = []
    for dtype in (torch.float32, torch.float64):
        values, momentum = (torch.zeros(160, 448, dtype=dtype) for _ in range(2))
        muon.step(values, gradient.to(dtype), momentum, 0.01, 0.95, 0.0)
        made.append(values.double())
    rounded, exact = made
    apart = float((rounded - exact).abs().max() / exact.abs().max())
    most = rounding(parse_config({"optimizer": {"kind": "muon"}}, "test"), torch.float32)
    assert 1e-7 < apart < most / 2


def test_momentum_is_nesterovs_and_decay_is_decoupled() -> None:
    first, second = random((8, 12), torch.float64), random((12, 8), torch.float64).mT
    values, momentum = torch.ones(8, 12, dtype=torch.float64), torch.zeros(8, 12).double()
    muon.step(values, first, momentum, 0.1, 0.9, 0.5)
    muon.step(values, second, momentum, 0.1, 0.9, 0.5)
    torch.testing.assert_close(momentum, 0.9 * first + second)
    expected = torch.ones(8, 12, dtype=torch.float64)
    for ahead in (1.9 * first, 0.9 * (0.9 * first + second) + second):
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * muon.direction(ahead)
    torch.testing.assert_close(values, expected)


def config(cut: tuple[int, ...], kind: str = "muon", **sections: Any) -> RunConfig:
    shape = {"layers": 4, "width": 32, "heads": 2, "kv_heads": 1, "sequence": 24, "vocab": 256}
    sections["model"] = shape | sections.get("model", {})
    optimizer = {"kind": kind, "lr": 0.01, "warmup_steps": 5}
    values = {**sections, "stages": {"layers": cut}, "optimizer": optimizer}
    return parse_config({"run": {"steps": 60}, **values}, "test")


@pytest.mark.parametrize("cut", [(4,), (1, 3), (1, 1, 2)])
def test_it_is_for_the_matrices_of_blocks_wherever_the_model_is_cut(cut: tuple[int, ...]) -> None:
    found = {
        name.removeprefix("optimizer."): tensor.shape
        for index in range(len(cut))
        for name, tensor in Stage(config(cut), index).state().items()
        if name.startswith("optimizer.")
    }
    names = {name for name in found if name.startswith("momentum_buffer.")}
    assert len(names) == 4 * 7 and all(name.startswith("momentum_buffer.blocks.") for name in names)
    assert all(len(found[name]) == 2 for name in names)
    vectors = {
        f"blocks.{i}.{part}_norm.weight" for i in range(4) for part in ("attention", "feed_forward")
    }
    others = vectors | {"embed.weight", "head.weight", "norm.weight"}
    slots = {f"{slot}.{name}" for slot in ("exp_avg", "exp_avg_sq") for name in others}
    assert set(found) == names | slots | {"step"}


def test_of_ones_own_layers_it_takes_linear_ones_but_for_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        from torch import nn
        def build():
            inner = lambda: nn.Sequential(nn.Embedding(256, 8), nn.Linear(8, 6), nn.Conv1d(6, 6, 1))
            outer = lambda: nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 256))
            return [inner, outer], lambda x, y: x.sum()
    """
    (tmp_path / "own_hidden.py").write_text("\n".join(line[8:] for line in source.splitlines()))
    monkeypatch.syspath_prepend(tmp_path)
    model = build_layers(config((1, 1), model={"kind": "own_hidden:build", "layers": 2}))
    assert Slice(model, 0, 1).hidden_matrices() == {"layers.0.1.weight"}
    assert Slice(model, 1, 2).hidden_matrices() == {"layers.1.0.weight"}
    assert Slice(model, 0, 2).hidden_matrices() == {"layers.0.1.weight", "layers.1.0.weight"}


def test_a_stage_of_hidden_matrices_alone_has_their_momentum_and_a_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        from torch import nn
        def build():
            linear = lambda: nn.Linear(8, 8, bias=False)
            layers = [lambda: nn.Embedding(256, 8), linear, lambda: nn.Linear(8, 256)]
            return layers, lambda x, y: x.sum()
    """
    (tmp_path / "own_linear.py").write_text("\n".join(line[8:] for line in source.splitlines()))
    monkeypatch.syspath_prepend(tmp_path)
    stage = Stage(config((1, 1, 1), model={"kind": "own_linear:build", "layers": 3}), 1)
    digest = stage.step(torch.ones(64), 1.0)
    assert set(stage.state()) == {
        "model.layers.1.weight",
        "optimizer.momentum_buffer.layers.1.weight",
        "optimizer.step",
    }
    stage.load_state(stage.state(), 1)
    assert stage.digest() == digest
    assert stage.row_lengths(slice(3, 13)) == [10, 10]


@pytest.mark.parametrize("value", [1.0, -0.1, "fast"])
def test_impossible_momentum_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.muon_momentum"):
        parse_config({"optimizer": {"kind": "muon", "muon_momentum": value}}, "test")


def test_the_loss_goes_down_with_it_as_it_does_with_adamw() -> None:
    for kind in ("adamw", "muon"):
        losses: list[float] = []
        run = config((4,), kind, data={"source": str(ROOT / "swarmrt" / "config.py")})
        train_reference(run, 40, lambda step, loss, lr, to=losses: to.append(loss))  # type: ignore[misc]
        assert sum(losses[-3:]) < 0.75 * sum(losses[:3]), kind
