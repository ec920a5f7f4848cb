"""The same training in one process: what the swarm must agree with.

It shares the layers, draws, data and update rule with the stages, and nothing else: one model,
one loop, microbatches in the order of their indices.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from swarmrt.config import RunConfig
from swarmrt.data import open_data
from swarmrt.errors import UsageError
from swarmrt.ids import MicrobatchId
from swarmrt.model.build import LayerSpec, build_layer, loss_sum, model_spec
from swarmrt.model.draws import drawing_layer
from swarmrt.model.optimizer import (
    clip_scale,
    learning_rate,
    new_optimizer,
    set_learning_rate,
)

OnStep = Callable[[int, float, float], None]  # step from 1, loss in nats a token, learning rate


def train_reference(
    config: RunConfig, steps: int, on_step: OnStep | None = None
) -> dict[str, Tensor]:
    """The whole model's state dict after so many updates."""
    if config.model.dtype == "bfloat16":
        raise UsageError("the reference is exact only in float32 and float64; set model.dtype")
    data = open_data(config)
    spec = model_spec(config)
    layers = [(layer, build_layer(config, layer)) for layer in spec.layers]
    parameters = [p for _, module in layers for p in module.parameters() if p.requires_grad]
    optimizer = new_optimizer(config.optimizer, parameters)
    for step in range(steps):
        total, tokens = 0.0, 0
        for index in range(config.batch.microbatches):
            microbatch = MicrobatchId(step, index)
            inputs, targets = map(torch.from_numpy, data.microbatch(microbatch))
            output = run_layers(config, layers, microbatch, inputs)
            loss = loss_sum(spec.loss, output, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            total, tokens = total + float(loss.detach()), tokens + targets.numel()
        _update(config, optimizer, parameters, tokens, step)
        if on_step is not None:
            on_step(step + 1, total / tokens, learning_rate(config, step))
    return state_dict(layers)


def run_layers(
    config: RunConfig,
    layers: list[tuple[LayerSpec, nn.Module]],
    microbatch: MicrobatchId,
    value: Tensor,
) -> Tensor:
    """Forward through all layers, in training mode, with the microbatch's draws."""
    for layer, module in layers:
        with drawing_layer(value.device, config.run.seed, microbatch, layer.index):
            value = module.train()(value)
    return value


def state_dict(layers: list[tuple[LayerSpec, nn.Module]]) -> dict[str, Tensor]:
    return {
        layer.name + name: tensor.detach().clone()
        for layer, module in layers
        for name, tensor in module.state_dict().items()
    }


def _update(
    config: RunConfig,
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    tokens: int,
    step: int,
) -> None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    for gradient in gradients:
        gradient /= tokens
    squares = [torch.linalg.vector_norm(g, dtype=torch.float64) ** 2 for g in gradients]
    scale = clip_scale(float(sum(squares)) ** 0.5, config.optimizer.clip_norm)
    for gradient in gradients:
        gradient *= scale
    set_learning_rate(optimizer, learning_rate(config, step))
    optimizer.step()
    optimizer.zero_grad()
