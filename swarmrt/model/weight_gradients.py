"""The part of backward that nobody waits for: gradients of linear layers' weights.

A linear layer's backward makes two products of equal cost. One is its input's gradient, which the
stages before wait for. The other is its weight's, which is not needed before the step is committed,
and can be left for a time in which there is nothing else to do (zero bubble pipelines: Qi et al.
2023, section 2). It is added to the accumulator as it is multiplied, which needs no memory for the
product.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

When = Literal["now", "later", "never"]

WORTH_FLOPS = 2**26  # of a product: some 0.5 ms of a CPU core. A layer that is apart costs 0.07 ms


class Factors(NamedTuple):
    """A weight's gradient, not multiplied yet."""

    weight: nn.Parameter  # [O, I]; its `grad` is the accumulator
    inputs: Tensor  # [..., I]
    output_grad: Tensor  # [..., O]

    @torch.no_grad()
    def add(self) -> None:
        """Multiply, and add to the accumulator."""
        total = self.weight.grad
        assert total is not None
        output_grad_NO, inputs_NI = self.output_grad.flatten(0, -2), self.inputs.flatten(0, -2)
        if total.dtype == output_grad_NO.dtype:
            total.addmm_(output_grad_NO.T, inputs_NI)
        else:
            total += output_grad_NO.T @ inputs_NI


class WeightGradients:
    """Set `when` before a backward; what it left for later, `take` after it."""

    def __init__(self) -> None:
        self.when: When = "now"
        self._left: list[Factors] = []

    def split(self, module: nn.Module) -> None:
        """Have its larger linear layers leave the gradients of their weights to this object."""
        for inner in module.modules():
            if type(inner) is nn.Linear:
                inner.forward = partial(_linear, inner, self)  # type: ignore[method-assign]

    def come(self, factors: Factors) -> None:
        if self.when == "now":
            factors.add()
        elif self.when == "later":
            self._left.append(factors)

    def take(self) -> list[Factors]:
        left, self._left = self._left, []
        return left


def _linear(layer: nn.Linear, gradients: WeightGradients, inputs: Tensor) -> Tensor:
    """Do `layer.forward`, unchanged without a graph, if it is small, or where it is compiled."""
    flops = 2 * inputs.numel() * layer.out_features
    is_plain = torch.compiler.is_compiling() or not torch.is_grad_enabled() or inputs.dim() < 2
    if is_plain or flops < WORTH_FLOPS or not _is_free(layer.weight):
        return F.linear(inputs, layer.weight, layer.bias)
    output: Tensor = _Linear.apply(inputs, layer.weight, layer.bias, gradients)  # type: ignore[no-untyped-call]
    return output


def _is_free(weight: Tensor) -> bool:
    """Return whether a parameter is trained, and nobody wants to see its gradient come."""
    if not isinstance(weight, nn.Parameter) or not weight.requires_grad:
        return False
    return not (weight._backward_hooks or weight._post_accumulate_grad_hooks)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: nn.Parameter, bias: Tensor | None, to: WeightGradients
    ) -> Tensor:
        ctx.weight, ctx.to = weight, to
        kind = inputs.device.type
        if torch.is_autocast_enabled(kind):  # else autograd would not see what is cast
            inputs = inputs.to(torch.get_autocast_dtype(kind))
        # The weight as it is: cast, each microbatch under way would hold a copy of its own.
        ctx.save_for_backward(inputs, weight.detach())
        return F.linear(inputs, weight.detach().to(inputs.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_grad: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        inputs, weight = ctx.saved_tensors
        needs_inputs, _, needs_bias, _ = ctx.needs_input_grad
        input_grad = output_grad @ weight.to(output_grad.dtype) if needs_inputs else None
        bias_grad = output_grad.flatten(0, -2).sum(0) if needs_bias else None
        ctx.to.come(Factors(ctx.weight, inputs.detach(), output_grad))
        return input_grad, None, bias_grad, None
