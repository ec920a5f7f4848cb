"""The training run as a plain loop: the whole model, one process, none of the runtime.

What every swarm is compared with. It shares layers, data, draws and optimizer settings with the
runtime, and deliberately nothing of stages, flat buffers or the protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from swarmrt.config import SYNC, RunConfig
from swarmrt.data import open_data
from swarmrt.errors import ModelError, RunError
from swarmrt.ids import MicrobatchId
from swarmrt.model.build import Slice, build_layers
from swarmrt.model.optimizer import (
    clip_scale,
    learning_rate,
    make_optimizer,
    set_learning_rate,
)
from swarmrt.model.pieces import Piece, is_decayed, piece_of, slots
from swarmrt.model.prediction import predict

OnStep = Callable[[int, float, float], None]


def train_reference(
    config: RunConfig, steps: int, on_step: OnStep | None = None, device: str = "cpu"
) -> dict[str, Tensor]:
    """The exported weights after `steps` updates, computed on `device`; copies on the CPU.

    `on_step(step, mean_loss, lr)` is called after each update, `step` counted from 1. Raises
    ModelError and DataError. In bfloat16 the updates go to float32 masters, as in the runtime. With
    `optimizer.staleness` a step's gradient is that of what was expected of its version when the one
    before was the newest. Refuses a run whose replicas differ, which no single process repeats.
    """
    if config.averaging.strategy != SYNC:
        raise ModelError(
            f"averaging.strategy {config.averaging.strategy!r} has replicas that differ, and one "
            "process has none; to train the same text synchronously, say averaging.strategy = "
            '"sync", and as many microbatches in a step as all replicas have in one of their own'
        )
    data = open_data(config)
    model = build_layers(config)
    there = torch.device(device)
    whole = Slice(model, 0, len(model.layers)).to(there)
    trained, hidden = whole.trainable(), whole.hidden_matrices()
    parameters = list(trained.values())
    masters = [_master(parameter) for parameter in parameters]
    pieces = [piece_of(config, x, is_hidden=name in hidden) for name, x in trained.items()]
    optimizer = make_optimizer(
        config,
        [master for master in masters if is_decayed(master)],
        [master for master in masters if not is_decayed(master)],
        [master for name, master in zip(trained, masters, strict=True) if name in hidden],
    )
    mixed = config.precision.compute == "bfloat16"
    expected = _expected(config, 0, optimizer, masters, pieces)
    for step in range(steps):
        sums = [torch.zeros_like(master) for master in masters]
        loss_sum, tokens = 0.0, 0
        for index in range(config.batch.microbatches):
            microbatch = MicrobatchId(step, index)
            arrays = data.microbatch(microbatch)
            inputs, targets = (torch.from_numpy(array).to(there) for array in arrays)
            with torch.autocast(there.type, torch.bfloat16, enabled=mixed):
                loss = model.loss_sum(whole(inputs, microbatch), targets)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for total, gradient in zip(sums, gradients, strict=True):
                if gradient is not None:
                    total += gradient
            loss_sum += loss.item()
            tokens += targets.numel()
        norm = _set_gradients(masters, sums, tokens, config.optimizer.clip_norm)
        is_finite = math.isfinite(norm) and math.isfinite(loss_sum)
        if not is_finite and config.optimizer.not_finite == "stop":
            raise RunError(f"the gradient of step {step + 1} is not finite")
        rate = learning_rate(config, step)
        set_learning_rate(optimizer, rate)
        if is_finite:
            optimizer.step()
        # a stale step began before this update was there
        _copy(expected if config.optimizer.staleness_of(step + 1) else masters, parameters)
        if config.optimizer.staleness:
            expected = _expected(config, step + 1, optimizer, masters, pieces)
        if on_step is not None:
            on_step(step + 1, loss_sum / tokens, rate)
    _copy(masters, parameters)
    return {name: _on_host(tensor) for name, tensor in whole.tensors().items()}


def _on_host(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def _expected(
    config: RunConfig,
    version: int,
    optimizer: torch.optim.Optimizer,
    masters: list[torch.nn.Parameter],
    pieces: list[Piece],
) -> list[Tensor]:
    """Return what is expected of the weights after the update of a version."""
    found = []
    for master, piece in zip(masters, pieces, strict=True):
        state, out = optimizer.state[master], torch.empty_like(master, requires_grad=False)
        moments = {slot: state[slot].flatten() for slot in slots(config, piece.rule)}
        values, count = master.detach().flatten(), int(state.get("step", 0))
        predict(config, piece, version, values, moments, count, out=out.view(-1))
        found.append(out)
    return found


def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for source, target in zip(sources, targets, strict=True):
            target.copy_(source)


def _master(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    """A copy in at least float32."""
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    return torch.nn.Parameter(parameter.detach().to(dtype, copy=True))


def _set_gradients(
    masters: list[torch.nn.Parameter], sums: list[Tensor], tokens: int, clip_norm: float
) -> float:
    """Set the mean's gradient, clipped by the norm of the whole model's, which is returned."""
    for total in sums:
        total /= tokens
    squares = [torch.linalg.vector_norm(mean, dtype=torch.float64).square() for mean in sums]
    norm = float(torch.stack(squares).sum().sqrt())
    scale = clip_scale(norm, clip_norm)
    for master, mean in zip(masters, sums, strict=True):
        master.grad = mean * scale
    return norm
