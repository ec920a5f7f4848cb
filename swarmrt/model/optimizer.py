"""Optimizers, the learning-rate schedule and clipping.

AdamW: Loshchilov and Hutter, 2019. Torch's fused kernels are three times as fast on a CPU as
its loops (AdamW, 20 million float32 values: 18 ms against 46), and work value by value: the
result does not depend on how parameters are cut up, nor on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from swarmrt.config import RunConfig


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


def is_decayed(parameter: torch.Tensor) -> bool:
    """Weight decay is for matrices; gains and biases are left alone."""
    return parameter.dim() >= 2


def make_optimizer(
    config: RunConfig, decayed: Sequence[nn.Parameter], plain: Sequence[nn.Parameter]
) -> torch.optim.Optimizer:
    """The configured optimizer. Set its rate with `set_learning_rate` before each step.

    Its moments exist from the start, so that a fresh replica's state has the same names as a
    trained one's.
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
        case "sgd":
            optimizer = torch.optim.SGD(
                groups, lr=settings.lr, momentum=settings.momentum, fused=True
            )
    for parameter in (*decayed, *plain):
        optimizer.state[parameter] = _first_state(config, parameter)
    return optimizer


def update(
    config: RunConfig,
    values: torch.Tensor,
    gradient: torch.Tensor,
    moments: Mapping[str, torch.Tensor],
    count: torch.Tensor,
    rate: float,
    *,
    decayed: bool,
) -> None:
    """Do a step of the configured optimizer on flat tensors, in place.

    `moments` has those of `slots`; `count`, of steps, goes up by one with AdamW. These are the
    kernels of `torch.optim` without its classes, the first of which to be made imports torch's
    compiler: two seconds and 100 MB of a process that compiles nothing.
    """
    settings = config.optimizer
    decay = settings.weight_decay if decayed else 0.0
    with torch.no_grad():
        match settings.kind:
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


def slots(config: RunConfig) -> tuple[str, ...]:
    """Names of the moments that the optimizer keeps of each parameter."""
    if config.optimizer.kind == "adamw":
        return ("exp_avg", "exp_avg_sq")
    return ("momentum_buffer",) if config.optimizer.momentum else ()


def _first_state(config: RunConfig, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
    state = {slot: torch.zeros_like(parameter, requires_grad=False) for slot in slots(config)}
    if config.optimizer.kind == "adamw":
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return state


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
