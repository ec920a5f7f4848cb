"""Autograd's engine, without what `torch.autograd.backward` puts before it.

That compares shapes symbolically: it imports sympy at the first gradient that is handed in, which
takes half a second and 40 MB, and at each one a good part of what a small backward takes. The
engine compares shapes itself.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.variable import Variable


def add_gradients(end: Tensor, end_grad: Tensor | None) -> None:
    """Add to the `grad` of all leaves that `end` depends on. Without a gradient it must be a
    scalar.

    Raises RuntimeError when the shapes differ.
    """
    _run(end, end_grad, (), accumulate=True)


def gradient_of(inputs: Tensor, end: Tensor, end_grad: Tensor | None) -> Tensor | None:
    """Return the gradient of one tensor alone, None if the end does not depend on it; nothing is
    added anywhere."""
    (gradient,) = _run(end, end_grad, (inputs,), accumulate=False)
    return gradient


def _run(
    end: Tensor, end_grad: Tensor | None, inputs: tuple[Tensor, ...], *, accumulate: bool
) -> tuple[Tensor | None, ...]:
    start = torch.ones_like(end) if end_grad is None else end_grad
    found: tuple[Tensor | None, ...] = Variable._execution_engine.run_backward(
        (end,),
        (start,),
        False,
        False,
        inputs,
        allow_unreachable=True,
        accumulate_grad=accumulate,
    )
    return found
