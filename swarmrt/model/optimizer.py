"""Optimizers, the learning-rate schedule and clipping.

AdamW: Loshchilov and Hutter, 2019. Torch's fused kernels are three times as fast on a CPU as
its loops (AdamW, 20 million float32 values: 18 ms against 46), and work value by value: the
result does not depend on how parameters are cut up, nor on the number of threads. Muon, which takes
matrices as a whole, has a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from swarmrt.config import RunConfig
from swarmrt.model import muon
from swarmrt.model.pieces import Piece, Rule, rule_of, slots

ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-9}
"""Updates differ by less beside the largest value of a slice, if it is by rounding. In float32 that
is mostly 1 − beta, computed with more digits or fewer."""


def rounding(config: RunConfig, dtype: torch.dtype) -> float:
    """Return by how much two updates of a slice may differ beside its largest value."""
    return ROUNDING[dtype] * (muon.ROUNDS_MORE if config.optimizer.kind == "muon" else 1)


def learning_rate(config: RunConfig, step: float, length: float = 1.0) -> float:
    """The rate of update `step`, counted from 0. The last one has `final_lr_fraction` of lr.

    A replica's own updates lie within a step, and each covers a part of its data, `length` of a
    step. So the rate follows what the run has seen, whoever steps how often.
    """
    optimizer = config.optimizer
    if step < optimizer.warmup_steps:
        return optimizer.lr * min(1.0, (step + length) / optimizer.warmup_steps)
    decaying_steps = max(length, config.run.steps - length - optimizer.warmup_steps)
    progress = min(1.0, (step - optimizer.warmup_steps) / decaying_steps)
    final = optimizer.final_lr_fraction
    match optimizer.schedule:
        case "constant":
            return optimizer.lr
        case "linear":
            return optimizer.lr * (1.0 - (1.0 - final) * progress)
        case "cosine":
            cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
            return optimizer.lr * (final + (1.0 - final) * cosine)


def clip_scale(norm: float, clip_norm: float) -> float:
    """Return what to multiply a gradient of this norm by, so that it is no longer than
    `clip_norm`."""
    return 1.0 if clip_norm == 0 or norm <= clip_norm else clip_norm / norm


def make_optimizer(
    config: RunConfig,
    decayed: Sequence[nn.Parameter],
    plain: Sequence[nn.Parameter],
    hidden: Sequence[nn.Parameter] = (),
) -> torch.optim.Optimizer:
    """The configured optimizer. Set its rate with `set_learning_rate` before each step.

    `hidden` are those of the decayed that Muon is for. Moments exist from the start, so that a
    fresh replica's state has the same names as a trained one's.
    """
    settings = config.optimizer
    groups = [
        {"params": list(decayed), "weight_decay": settings.weight_decay},
        {"params": list(plain), "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer: torch.optim.Optimizer
    match settings.kind:
        case "adamw":
            betas = settings.betas
            optimizer = torch.optim.AdamW(
                groups, lr=settings.lr, betas=betas, eps=settings.eps, fused=True
            )
        case "muon":
            optimizer = MuonAndAdamW(config, groups, hidden)
        case "sgd":
            optimizer = torch.optim.SGD(
                groups, lr=settings.lr, momentum=settings.momentum, fused=True
            )
    ids = {id(parameter) for parameter in hidden}
    for parameter in (*decayed, *plain):
        rule = rule_of(config, is_hidden=id(parameter) in ids)
        optimizer.state[parameter] = _first_state(config, rule, parameter)
    return optimizer


class MuonAndAdamW(torch.optim.AdamW):
    """Muon for hidden matrices, and AdamW for all else."""

    def __init__(
        self, config: RunConfig, groups: list[dict[str, Any]], hidden: Sequence[nn.Parameter]
    ) -> None:
        settings = config.optimizer
        how: Any = {"betas": settings.betas, "eps": settings.eps, "fused": True}
        super().__init__(groups, lr=settings.lr, **how)
        self._settings, self._hidden = settings, hidden

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        settings, rate = self._settings, self.param_groups[0]["lr"]
        for matrix in self._hidden:
            assert matrix.grad is not None
            state = self.state[matrix]
            how = (rate, settings.muon_momentum, settings.weight_decay)
            muon.step(matrix, matrix.grad, state["momentum_buffer"], *how)
            state["step"] += 1
            matrix.grad = None  # so AdamW leaves it alone
        super().step(closure)


def update(
    config: RunConfig,
    piece: Piece,
    values: torch.Tensor,
    gradient: torch.Tensor,
    moments: Mapping[str, torch.Tensor],
    count: torch.Tensor,
    rate: float,
) -> None:
    """Do a step of a piece's rule on flat tensors, in place: on all of the piece, or a slice of one
    that has no shape.

    `moments` has those of `slots`; `count`, of steps, goes up by one but with SGD. These are the
    kernels of `torch.optim` without its classes, the first of which to be made imports torch's
    compiler: two seconds and 100 MB of a process that compiles nothing.
    """
    settings = config.optimizer
    decay = settings.weight_decay if piece.is_decayed else 0.0
    with torch.no_grad():
        match piece.rule:
            case "adamw":
                adamw(
                    [values],
                    [gradient],
                    [moments["exp_avg"]],
                    [moments["exp_avg_sq"]],
                    [],
                    [count],
                    fused=True,
                    amsgrad=False,
                    beta1=settings.betas[0],
                    beta2=settings.betas[1],
                    lr=rate,
                    weight_decay=decay,
                    eps=settings.eps,
                    maximize=False,
                )
            case "sgd":
                sgd(
                    [values],
                    [gradient],
                    [moments.get("momentum_buffer")],
                    fused=True,
                    weight_decay=decay,
                    momentum=settings.momentum,
                    lr=rate,
                    dampening=0.0,
                    nesterov=False,
                    maximize=False,
                )
            case "muon":
                assert piece.shape is not None
                matrix = values.view(piece.shape)
                momentum = moments["momentum_buffer"].view(piece.shape)
                how = (rate, settings.muon_momentum, decay)
                muon.step(matrix, gradient.view(piece.shape), momentum, *how)
                count += 1


def _first_state(config: RunConfig, rule: Rule, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
    state = {slot: torch.zeros_like(parameter, requires_grad=False) for slot in slots(config, rule)}
    if rule != "sgd":
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return state


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
