"""Cutting a model's layers into stages, so that the costliest stage costs the least."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.errors import ModelError
from swarmrt.ids import MicrobatchId
from swarmrt.model.accelerators import NeedsAccelerator, accelerator, error_of, wait_for
from swarmrt.model.build import Layered, Slice, build_layers
from swarmrt.model.builders import BUILT_IN, line_of
from swarmrt.model.engine import add_gradients

MEASUREMENTS = 3  # of each kind of layer, after one to warm up; the least one counts
ALIKE = 2.0  # times of layers that look alike and are no further apart differ by chance


def resolve(config: RunConfig) -> RunConfig:
    """The configuration with its cut written down, as it is published. Raises ModelError."""
    return config.with_stage_layers(cut(config))


def check_stages(config: RunConfig) -> Layered:
    """The model, if its layers can be cut as asked. Raises ModelError."""
    model = build_layers(config)
    number = len(model.layers)
    if config.stages.layers is not None:
        if sum(config.stages.layers) != number:
            raise ModelError(
                f"stages.layers {list(config.stages.layers)} adds up to "
                f"{sum(config.stages.layers)} layers, but the model has {number}"
            )
    elif config.num_stages > number:
        raise ModelError(
            f"{config.num_stages} stages need at least as many layers; the model has {number}"
        )
    return model


def cut(config: RunConfig) -> tuple[int, ...]:
    """Layers of each stage: as configured, or by measured cost. Raises ModelError.

    Each stage has something to train.
    """
    model = check_stages(config)
    if config.stages.layers is not None:
        return config.stages.layers
    if config.num_stages == 1:
        return (len(model.layers),)
    costs = _measure_somewhere(model)
    trained = [cost.is_trained for cost in costs]
    if sum(trained) < config.num_stages:
        raise ModelError(
            f"{config.num_stages} stages need at least as many layers that are trained; the model "
            f"has {sum(trained)}, and {len(trained) - sum(trained)} with nothing to train"
        )
    return balanced_cut([cost.seconds for cost in costs], config.num_stages, trained)


def balanced_cut(
    costs: Sequence[float], stages: int, trained: Sequence[bool] = ()
) -> tuple[int, ...]:
    """Sizes of `stages` contiguous, non-empty groups with the least possible largest sum.

    Exact, by dynamic programming over prefixes: the linear partition problem. Each group has one
    that is trained, by default all are; there must be so many.
    """
    trains = [0]
    for is_trained in trained or [True] * len(costs):
        trains.append(trains[-1] + is_trained)
    total = [0.0]
    for cost in costs:
        total.append(total[-1] + cost)
    best = [[float("inf")] * (len(costs) + 1) for _ in range(stages + 1)]
    start = [[0] * (len(costs) + 1) for _ in range(stages + 1)]
    best[0][0] = 0.0
    for stage in range(1, stages + 1):
        for end in range(stage, len(costs) + 1):
            for begin in (b for b in range(stage - 1, end) if trains[b] < trains[end]):
                largest = max(best[stage - 1][begin], total[end] - total[begin])
                if largest < best[stage][end]:
                    best[stage][end], start[stage][end] = largest, begin
    sizes, end = [], len(costs)
    for stage in range(stages, 0, -1):
        sizes.append(end - start[stage][end])
        end = start[stage][end]
    return tuple(reversed(sizes))


class Cost(NamedTuple):
    """A layer's seconds of forward and backward on this machine."""

    seconds: float
    is_trained: bool


def _measure_somewhere(model: Layered) -> list[Cost]:
    """Return what each layer costs, on an accelerator if it computes nowhere else."""
    try:
        return measure(model)
    except NeedsAccelerator as error:
        device = accelerator()
        if device is None:
            raise ModelError(
                f"{error}; to cut a model by measured cost needs a device on which it computes: "
                f"say in stages.layers how many of its {len(model.layers)} layers each stage has"
            ) from None
        return measure(model, device)


def measure(model: Layered, device: str = "cpu") -> list[Cost]:
    """Return what each layer costs, with one in memory at a time."""
    batch, sequence = model.config.batch.microbatch, model.config.model.sequence
    tokens = torch.zeros(batch, sequence, dtype=torch.int64, device=device)
    known: dict[str, tuple[float, Tensor]] = {}
    costs = []
    value = tokens
    for index in range(len(model.layers)):
        layer = Slice(model, index, index + 1).to(device)
        targets = tokens if index == len(model.layers) - 1 else None
        kind = f"{layer!r} {tuple(value.shape)} {targets is None}"
        if kind not in known or model.config.model.kind != BUILT_IN:
            try:
                known[kind] = _measure_layer(model, layer, value, targets, known.get(kind))
            except ModelError:
                raise
            except Exception as error:
                raise error_of(
                    error,
                    f"{model.config.model.kind}: layer {index} cannot compute an input of "
                    f"{list(value.shape)}: {line_of(error)}",
                ) from error
        seconds, value = known[kind]
        costs.append(Cost(seconds, bool(layer.trained_layers())))
    return costs


def _measure_layer(
    model: Layered,
    layer: Slice,
    value: Tensor,
    targets: Tensor | None,
    alike: tuple[float, Tensor] | None,
) -> tuple[float, Tensor]:
    """The least time of some, and the output. With targets, the loss is part of the layer.

    Where one that looks alike is known, which says little of the user's own code, the time of this
    one is taken once, and counts if it is another.
    """
    if value.is_floating_point():
        value = value.detach().requires_grad_()
    times = []
    for _ in range(1 if alike is not None else MEASUREMENTS + 1):
        started = time.perf_counter()
        output: Tensor = layer(value.clone(), MicrobatchId(0, 0))
        end = output if targets is None else model.loss_sum(output, targets)
        if end.requires_grad:
            add_gradients(end, torch.ones_like(end))
        wait_for(value.device)
        times.append(time.perf_counter() - started)
    seconds = min(times[1:], default=times[0])
    if alike is not None and alike[0] / ALIKE < seconds < alike[0] * ALIKE:
        seconds = alike[0]
    return seconds, output.detach()
