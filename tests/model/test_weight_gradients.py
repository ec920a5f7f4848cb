"""Gradients of weights that are made later equal those of autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swarmrt.model.weight_gradients import WORTH_FLOPS, WeightGradients

ROWS, WIDTH, HIDDEN = 256, 256, 512
assert 2 * ROWS * WIDTH * HIDDEN >= WORTH_FLOPS


class Layers(nn.Module):
    """Two linear layers that are worth it, one of them twice, and one that is not."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up = nn.Linear(WIDTH, HIDDEN, dtype=dtype)
        self.down = nn.Linear(HIDDEN, WIDTH, bias=False, dtype=dtype)
        self.small = nn.Linear(WIDTH, 2, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.down(torch.tanh(self.up(x)))
        x = x + self.down(torch.tanh(self.up(x)))
        joined: Tensor = x + self.small(x).sum(-1, keepdim=True)
        return joined


def split(layers: nn.Module) -> tuple[nn.Module, WeightGradients]:
    """A copy that leaves its gradients, with accumulators."""
    mine, gradients = copy.deepcopy(layers), WeightGradients()
    gradients.split(mine)
    for parameter in mine.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return mine, gradients


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """A batch [4, ROWS / 4, WIDTH], and the gradient of what comes of it."""
    torch.manual_seed(1)
    x = torch.randn(4, ROWS // 4, WIDTH, dtype=dtype, requires_grad=True)
    return x, torch.randn(4, ROWS // 4, WIDTH, dtype=dtype)


def named_gradients(layers: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in layers.named_parameters() if p.grad is not None}


def assert_close(mine: nn.Module, reference: nn.Module, tolerance: float = 1e-12) -> None:
    expected = named_gradients(reference)
    found = named_gradients(mine)
    assert list(found) == list(expected)
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= tolerance * gradient.abs().max(), name


def test_now_equals_autograd() -> None:
    plain = Layers()
    mine, _ = split(plain)
    input_grads = []
    for layers in (plain, mine):
        x, output_grad = inputs()
        layers(x).backward(output_grad)
        assert x.grad is not None
        input_grads.append(x.grad)
    assert_close(mine, plain)
    assert (input_grads[0] - input_grads[1]).abs().max() < 1e-12


def test_later_equals_autograd_and_holds_no_graph() -> None:
    plain = Layers()
    mine, gradients = split(plain)
    for layers in (plain, mine):
        x, output_grad = inputs()
        gradients.when = "later"
        layers(x).backward(output_grad)
    left = gradients.take()
    assert len(left) == 4 and not gradients.take()
    assert all(factors.inputs.grad_fn is None for factors in left)
    assert not named_gradients(mine)["up.weight"].any()
    for factors in reversed(left):
        factors.add()
    assert_close(mine, plain)


def test_never_adds_nothing() -> None:
    mine, gradients = split(Layers())
    gradients.when = "never"
    x, output_grad = inputs()
    torch.autograd.grad(mine(x), x, output_grad)
    assert not gradients.take()
    assert not any(gradient.any() for gradient in named_gradients(mine).values())


@pytest.mark.parametrize("when", ["now", "later"])
def test_autocast_equals_autograd(when: str) -> None:
    plain = Layers(torch.float32)
    mine, gradients = split(plain)
    gradients.when = when  # type: ignore[assignment]
    for layers in (plain, mine):
        x, output_grad = inputs(torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            end = layers(x)
        end.backward(output_grad.to(end.dtype))
    for factors in gradients.take():
        assert factors.inputs.dtype == torch.bfloat16
        factors.add()
    assert_close(mine, plain, 2e-2)


def test_autocast_keeps_no_weights_of_its_own() -> None:
    """Of as many microbatches as are under way, all would hold a copy."""
    layers, _ = split(Layers(torch.float32))
    weights = [layers.up.weight, layers.down.weight]  # type: ignore[union-attr]
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x, _ = inputs(torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16):
            layers(x)
    matrices = [tensor for tensor in kept if tensor.shape in {(HIDDEN, WIDTH), (WIDTH, HIDDEN)}]
    assert len(matrices) == 4
    assert {m.data_ptr() for m in matrices} == {w.data_ptr() for w in weights}  # type: ignore[operator]


@pytest.mark.parametrize("reentrant", [True, False])
def test_layers_that_compute_again_in_backward(reentrant: bool) -> None:
    plain = Layers()
    mine, gradients = split(plain)
    gradients.when = "later"
    for layers in (plain, mine):
        x, output_grad = inputs()
        checkpoint(layers, x, use_reentrant=reentrant).backward(output_grad)
    for factors in gradients.take():
        factors.add()
    assert_close(mine, plain)


def spectral(layers: Layers) -> Callable[[], bool]:
    """Its weight is computed in every forward."""
    nn.utils.parametrizations.spectral_norm(layers.up)
    return lambda: True


def hooked(layers: Layers) -> Callable[[], bool]:
    """Somebody wants to see the gradient of its weight."""
    seen: list[Tensor] = []
    layers.up.weight.register_hook(seen.append)  # type: ignore[no-untyped-call]
    return lambda: bool(seen)


def frozen(layers: Layers) -> Callable[[], bool]:
    layers.up.weight.requires_grad_(False)
    return lambda: layers.up.weight.grad is None or not layers.up.weight.grad.any()


@pytest.mark.parametrize("prepare", [spectral, hooked, frozen])
def test_weights_that_are_not_free_stay_with_autograd(
    prepare: Callable[[Layers], Callable[[], bool]],
) -> None:
    layers, gradients = Layers(), WeightGradients()
    is_kept = prepare(layers)
    gradients.split(layers)
    for parameter in layers.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gradients.when = "later"
    x, output_grad = inputs()
    layers(x).backward(output_grad)
    assert len(gradients.take()) == 2, "those of `down` alone"
    assert is_kept()


def test_first_layer_whose_input_needs_no_gradient() -> None:
    plain = Layers()
    mine, gradients = split(plain)
    gradients.when = "later"
    for layers in (plain, mine):
        x, output_grad = inputs()
        layers(x.detach()).backward(output_grad)
    for factors in gradients.take():
        factors.add()
    assert_close(mine, plain)
