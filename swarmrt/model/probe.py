"""A trial of a cut: one microbatch through the model as it is alone, and through its stages.

What the user's code builds outside of the runtime is what counts. The stages are built as peers
build them, each by a call of the builder of its own, and compute as peers do, also the second way
that only faults take. What comes out is compared; what differs is an error that names the layer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from swarmrt.config import SYNC, RunConfig
from swarmrt.errors import ModelError
from swarmrt.ids import MicrobatchId
from swarmrt.model.accelerators import error_of
from swarmrt.model.build import Layered, Slice, build_layers
from swarmrt.model.builders import line_of
from swarmrt.model.meta import shapes_of
from swarmrt.model.stage import WITHOUT_STATISTICS, Forwarded, Stage
from swarmrt.model.strategies import strategy_of
from swarmrt.run_identity import with_values

MICROBATCH = MicrobatchId(0, 0)
SMALL = 1e-3  # of the whole gradient's norm: a bias before a softmax gets rounding errors alone
TOLERANCE = {"float64": 1e-9, "float32": 1e-3, "bfloat16": 0.1}  # of what is compared, in norm


class Alone(NamedTuple):
    """The results of the model in one piece."""

    outputs: list[Tensor]  # of each layer
    loss_sum: float
    gradients: dict[str, Tensor | None]


def probe(config: RunConfig, inputs: Tensor, targets: Tensor, device: str = "cpu") -> list[str]:
    """Compare the cut model with the whole one, and return what its user should know, in sentences.

    Inputs and targets are int64 [B, T]. `config.stages.layers` must be set. The whole model is
    built, twice. Raises ModelError when the two differ, or the model cannot be computed at all;
    NeedsAccelerator when it cannot on a CPU.
    """
    if config.averaging.is_on:
        strategy_of(config, num_parameters=1)
    config = with_values(config, {"optimizer.staleness": 0, "averaging.strategy": SYNC})
    model, (inputs, targets) = build_layers(config), (inputs.to(device), targets.to(device))
    whole = Slice(model, 0, len(model.layers)).to(device)
    alone = _compute_alone(config, model, whole, inputs, targets)
    stages = [Stage(config, index, device) for index in range(config.num_stages)]
    _compare_tensors(config, whole, stages)
    _compare(config, stages, alone, inputs, targets)
    return _notes(whole, alone)


def check_shared(config: RunConfig) -> None:
    """Check that no layers share a parameter, without memory for any. Raises ModelError."""
    shapes_of(config, lambda: _whole(config))


def _whole(config: RunConfig) -> Slice:
    model = build_layers(config)
    return Slice(model, 0, len(model.layers))


# ---------------------------------------------------------------------- the model alone


def _compute_alone(
    config: RunConfig, model: Layered, whole: Slice, inputs: Tensor, targets: Tensor
) -> Alone:
    """Compute it as any code would that has torch and no runtime."""
    names, parameters = set(whole.tensors()), whole.trainable()
    outputs: list[Tensor] = []
    mixed = config.precision.compute == "bfloat16"
    try:
        with torch.autocast(inputs.device.type, torch.bfloat16, mixed):
            output = whole(inputs, MICROBATCH, _watching(config, whole, outputs))
            loss = model.loss_sum(output, targets)
    except ModelError:
        raise
    except Exception as error:
        where = "the loss" if len(outputs) == len(model.layers) else f"layer {len(outputs)}"
        raise error_of(
            error,
            f"{config.model.kind}: {where} cannot compute a microbatch of the data, whose "
            f"largest token is {int(max(inputs.max(), targets.max()))}: {line_of(error)}",
        ) from error
    new = sorted(set(whole.tensors()) - names)
    if new:
        raise ModelError(
            f"{config.model.kind}: {new[0]} is made on first use; make it in the layer's __init__"
        )
    if not loss.requires_grad:
        raise ModelError(f"{config.model.kind}: the loss depends on no parameter that is trained")
    _refuse_unknown(config, loss, parameters)
    try:
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    except Exception as error:
        what = f"{config.model.kind}: the gradient cannot be computed: {line_of(error)}"
        raise error_of(error, what) from error
    return Alone(outputs, loss.item(), dict(zip(parameters, found, strict=True)))


def _watching(
    config: RunConfig, whole: Slice, outputs: list[Tensor]
) -> Callable[[int, Tensor], None]:
    """Return what takes down each layer's output, once the layer is computed. It raises ModelError
    where that did what no replica could repeat."""
    drawn, written = _drawn(), _written(whole)

    def after(index: int, output: Tensor) -> None:
        if _drawn() != drawn:
            raise ModelError(
                f"{config.model.kind}: layer {index} draws from Python's or numpy's random "
                "numbers; draw from torch's, which are equal wherever it is computed"
            )
        now = _written(whole)
        changed = [name for name in written if now.get(name) != written[name]]
        if changed:
            advice = "" if changed[0] in whole.trainable() else WITHOUT_STATISTICS
            raise ModelError(
                f"{config.model.kind}: layer {index} changes {changed[0]} in its forward; replicas "
                f"would disagree{advice}"
            )
        outputs.append(output.detach().clone())

    return after


def _drawn() -> tuple[Any, ...]:
    """Return the states of the generators that are not torch's."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), kind, keys.tobytes(), *rest  # type: ignore[union-attr]


def _written(whole: Slice) -> dict[str, tuple[int, int]]:
    """Return the place of each parameter and buffer, and torch's count of writes to it."""
    return {name: (x.data_ptr(), x._version) for name, x in whole.tensors().items()}


def _refuse_unknown(config: RunConfig, loss: Tensor, parameters: dict[str, nn.Parameter]) -> None:
    """Check that each parameter that the loss depends on is a layer's own. Raises ModelError."""
    known = {id(parameter) for parameter in parameters.values()}
    waiting, seen = [loss.grad_fn], set[Any]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, nn.Parameter) and id(leaf) not in known:
            raise ModelError(
                f"{config.model.kind}: the loss depends on a parameter of {list(leaf.shape)} that "
                "is in no layer, so it would not be trained; make it a layer's own (a loss has "
                "none, and modules in a list belong into an nn.ModuleList)"
            )
        waiting += [following for following, _ in node.next_functions]


# ---------------------------------------------------------------------- the stages


def _compare_tensors(config: RunConfig, whole: Slice, stages: list[Stage]) -> None:
    """Check that stages have, together, exactly the whole model's tensors."""
    cut = {name: x for stage in stages for name, x in stage.named_parameters_state().items()}
    for name, tensor in whole.tensors().items():
        other = cut.pop(name, None)
        if other is None or (other.shape, other.dtype) != (tensor.shape, tensor.dtype):
            raise ModelError(
                f"{config.model.kind}: {name} is another one when only its stage is built; a "
                "builder must return equal layers each time"
            )
        if not torch.equal(other, tensor.detach().cpu()):
            raise ModelError(
                f"{config.model.kind}: {name} has other values when only its stage is built; draw "
                "them from torch's random numbers, or compute them from the configuration"
            )


def _compare(
    config: RunConfig, stages: list[Stage], alone: Alone, inputs: Tensor, targets: Tensor
) -> None:
    layers = config.stages.layers
    assert layers is not None
    starts = [sum(layers[:index]) for index in range(len(layers))]
    first = _forward(stages, inputs, targets)
    for output, end in zip(first.sent, starts[1:], strict=True):
        what = f"the output of layer {end - 1}"
        _check_near(config, what, output, alone.outputs[end - 1])
    _check_near(config, "the loss", torch.tensor(first.loss_sum), torch.tensor(alone.loss_sum))
    passed = _backward(stages, first.kept, accumulate=True)
    found = {name: x for stage in stages for name, x in stage.named_gradients().items()}
    whole_norm = float(torch.stack([x.double().norm() for x in found.values()]).norm())
    for name, gradient in found.items():
        expected = alone.gradients[name]
        if expected is None:
            expected = torch.zeros_like(gradient)
        _check_near(config, f"the gradient of {name}", gradient, expected, SMALL * whole_norm)
    again = _forward(stages, inputs, targets)
    for output, other, end in zip(first.sent, again.sent, starts[1:], strict=True):
        if not _is_same(output, other):
            raise ModelError(
                f"{config.model.kind}: layer {end - 1} gives another output when the microbatch is "
                "computed again; layers must keep nothing from one call to the next"
            )
    passed_again = _backward(stages, again.kept, accumulate=False)
    for one, other_one, start in zip(passed, passed_again, starts, strict=True):
        if one is not None and other_one is not None:
            what = f"the gradient that layer {start} passes on, computed without those of weights,"
            _check_near(config, what, other_one, one)


class Went(NamedTuple):
    """The results of a microbatch's forward through the stages."""

    loss_sum: float
    sent: list[Tensor]  # from each stage to the next
    kept: list[Forwarded]  # by stage


def _forward(stages: list[Stage], inputs: Tensor, targets: Tensor) -> Went:
    value, sent, kept, loss_sum = inputs, list[Tensor](), list[Forwarded](), math.nan
    for stage in stages:
        forwarded = stage.forward(MICROBATCH, value, targets if stage.is_last else None)
        kept.append(forwarded)
        if forwarded.output is not None:
            value = forwarded.output.contiguous()
            sent.append(value.clone())
        if forwarded.loss_sum is not None:
            loss_sum = forwarded.loss_sum
    return Went(loss_sum, sent, kept)


def _backward(stages: list[Stage], kept: list[Forwarded], accumulate: bool) -> list[Tensor | None]:
    """Return what each stage passes on."""
    passed: list[Tensor | None] = []
    gradient: Tensor | None = None
    for stage, forwarded in zip(reversed(stages), reversed(kept), strict=True):
        gradient = stage.backward(forwarded, gradient, accumulate=accumulate, later=accumulate)
        stage.add_weight_gradients(forwarded)
        passed.insert(0, gradient)
    return passed


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Return whether they are equal: to the bit on a CPU; others may add in another order."""
    if one.device.type == "cpu":
        return torch.equal(one, other)
    return torch.allclose(one, other, rtol=SMALL, atol=SMALL * float(one.abs().max()))


def _check_near(
    config: RunConfig, what: str, found: Tensor, expected: Tensor, small: float = 1e-30
) -> None:
    """Check that two are equal but for rounding. A norm below `small` counts as that."""
    if found.shape == expected.shape:
        size = max(small, float(expected.double().norm()))
        off = float((found.double() - expected.double()).norm()) / size
        kinds = {config.model.dtype, config.precision.compute}
        if off <= max(TOLERANCE.get(kind, 0.0) for kind in kinds):
            return
        how = f"differs by {off:.1e} of its norm"
    else:
        how = f"is {list(found.shape)}, not {list(expected.shape)}"
    raise ModelError(
        f"{config.model.kind}: cut into stages, {what} {how} from that of the model in one piece; "
        "layers must hand all that they need on as their one output, and share nothing"
    )


# ---------------------------------------------------------------------- what to know


def _notes(whole: Slice, alone: Alone) -> list[str]:
    without = [name for name, gradient in alone.gradients.items() if gradient is None]
    if not without:
        return []
    more = f" and {len(without) - 1} more" if len(without) > 1 else ""
    return [f"no gradient reaches {without[0]}{more}: nothing that is learned changes it"]
