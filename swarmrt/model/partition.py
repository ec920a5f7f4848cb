"""Cutting a model's layers into stages, so that the costliest stage costs the least."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from swarmrt.config import RunConfig
from swarmrt.errors import ModelError
from swarmrt.model.build import LayerSpec, ModelSpec, build_layer, loss_sum, model_spec

MEASUREMENTS = 3  # of each kind of layer, after one to warm up; the least one counts


def resolve(config: RunConfig) -> RunConfig:
    """The configuration with its cut written down, as it is published. Raises ModelError."""
    return config.with_stage_layers(cut(config))


def check_stages(config: RunConfig) -> ModelSpec:
    """The model, if its layers can be cut as asked. Raises ModelError."""
    spec = model_spec(config)
    if config.stages.layers is not None:
        if sum(config.stages.layers) != spec.units:
            raise ModelError(
                f"stages.layers {list(config.stages.layers)} adds up to "
                f"{sum(config.stages.layers)} layers, but the model has {spec.units}"
            )
    elif config.num_stages > spec.units:
        raise ModelError(
            f"{config.num_stages} stages need at least as many layers; the model has {spec.units}"
        )
    return spec


def cut(config: RunConfig) -> tuple[int, ...]:
    """Layers of each stage: as configured, or by measured cost. Raises ModelError."""
    spec = check_stages(config)
    if config.stages.layers is not None:
        return config.stages.layers
    if config.num_stages == 1:
        return (spec.units,)
    return balanced_cut(measure(config, spec), config.num_stages)


def balanced_cut(costs: Sequence[float], stages: int) -> tuple[int, ...]:
    """Sizes of `stages` contiguous, non-empty groups with the least possible largest sum.

    Exact, by dynamic programming over prefixes: the linear partition problem.
    """
    total = [0.0]
    for cost in costs:
        total.append(total[-1] + cost)
    best = [[float("inf")] * (len(costs) + 1) for _ in range(stages + 1)]
    start = [[0] * (len(costs) + 1) for _ in range(stages + 1)]
    best[0][0] = 0.0
    for stage in range(1, stages + 1):
        for end in range(stage, len(costs) + 1):
            for begin in range(stage - 1, end):
                largest = max(best[stage - 1][begin], total[end] - total[begin])
                if largest < best[stage][end]:
                    best[stage][end], start[stage][end] = largest, begin
    sizes, end = [], len(costs)
    for stage in range(stages, 0, -1):
        sizes.append(end - start[stage][end])
        end = start[stage][end]
    return tuple(reversed(sizes))


def measure(config: RunConfig, spec: ModelSpec) -> list[float]:
    """Seconds of forward and backward of each unit on this machine, one layer at a time."""
    tokens = torch.zeros(config.batch.microbatch, config.model.sequence, dtype=torch.long)
    costs = [0.0] * spec.units
    known: dict[str, tuple[float, Tensor]] = {}
    value: Tensor = tokens
    for layer in spec.layers:
        module = build_layer(config, layer)
        kind = f"{module!r} {tuple(value.shape)}"
        if kind not in known:
            known[kind] = _measure_layer(layer, module, value, spec, tokens)
        seconds, value = known[kind]
        costs[layer.unit] += seconds
    return costs


def _measure_layer(
    layer: LayerSpec, module: nn.Module, value: Tensor, spec: ModelSpec, targets: Tensor
) -> tuple[float, Tensor]:
    """The least time of some, and the output."""
    value = value.detach()
    if value.is_floating_point():
        value.requires_grad_()
    is_last = layer is spec.layers[-1]
    times = []
    for _ in range(MEASUREMENTS + 1):
        started = time.perf_counter()
        output: Tensor = module(value)
        scalar = loss_sum(spec.loss, output, targets) if is_last else output.float().sum()
        if scalar.requires_grad:
            scalar.backward()  # type: ignore[no-untyped-call]
        times.append(time.perf_counter() - started)
    return min(times[1:]), output.detach()
