"""The way from a configuration to layers: the built-in decoder, or the user's own builder.

A *layer* is what a cut never splits. It has one or more named *parts*, built only when asked
for: a peer builds its own stage and nothing else. In the decoder the embedding belongs to the
first layer, the final norm and the head to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from swarmrt.config import Model, RunConfig
from swarmrt.errors import ModelError
from swarmrt.ids import MicrobatchId
from swarmrt.model.builders import BUILT_IN, Build, Loss, call_builder, line_of
from swarmrt.model.draws import building, drawing, seed_for
from swarmrt.model.layers import Block, Embedding, RMSNorm, head, token_losses


@dataclass(frozen=True)
class Part:
    """A module under its name in the state dict of the whole model."""

    name: str
    build: Build


@dataclass(frozen=True)
class Layered:
    """A model as layers. Nothing is built until `build_slice`."""

    config: RunConfig
    layers: tuple[tuple[Part, ...], ...]
    loss: Loss
    draws: bool  # whether training may draw random numbers
    built_bytes: int = 0  # of the layers that a builder has made itself, all stages' together

    def loss_sum(self, output: Tensor, targets: Tensor) -> Tensor:
        """A scalar: the loss summed over the targets. Raises ModelError for a wrong type."""
        loss = self.loss(output, targets)
        if not isinstance(loss, Tensor) or not loss.is_floating_point():
            raise ModelError(f"{self.config.model.kind}: the loss must return a floating tensor")
        return loss.sum() if loss.dim() else loss * targets.numel()


def build_layers(config: RunConfig) -> Layered:
    """The layers that `config.model` describes. Raises ModelError for an unusable builder."""
    if config.model.kind == BUILT_IN:
        layers = tuple(_decoder_layer(config.model, i) for i in range(config.model.layers))
        return Layered(config, layers, token_losses, draws=config.model.dropout > 0)
    own, loss = call_builder(config)
    layers = tuple((Part(f"layers.{i}", _as_build(layer)),) for i, layer in enumerate(own))
    made = [layer for layer in own if isinstance(layer, nn.Module)]
    built_bytes = sum(tensor.nbytes for layer in made for tensor in layer.state_dict().values())
    return Layered(config, layers, loss, draws=True, built_bytes=built_bytes)


def _as_build(layer: Build | nn.Module) -> Build:
    return (lambda: layer) if isinstance(layer, nn.Module) else layer


def _decoder_layer(model: Model, index: int) -> tuple[Part, ...]:
    parts = [Part(f"blocks.{index}", partial(Block, model))]
    if index == 0:
        parts.insert(0, Part("embed", partial(Embedding, model)))
    if index == model.layers - 1:
        parts += [Part("norm", partial(RMSNorm, model.width)), Part("head", partial(head, model))]
    return tuple(parts)


# ---------------------------------------------------------------------- building


class Slice(nn.Module):
    """Layers `first` to `last - 1`, built, in the model's dtype."""

    def __init__(self, model: Layered, first: int, last: int) -> None:
        super().__init__()
        self._model = model
        self._seed = model.config.run.seed
        self.first, self.last = first, last
        self._names: list[str] = []
        self._layers: list[list[nn.Module]] = []  # of `self.parts`
        self.parts = nn.ModuleList()
        for index in range(first, last):
            layer = list(build_layer(model, index))
            self._names += [name for name, _ in layer]
            self._layers.append([part for _, part in layer])
            self.parts.extend(self._layers[-1])
        self._refuse_shared()

    def _refuse_shared(self) -> None:
        """Check that no two layers train one parameter: as soon as a cut comes between them, it
        would be two."""
        owner: dict[int, int] = {}
        for index, parts in self.layers():
            for parameter in (p for part in parts for p in part.parameters() if p.requires_grad):
                if owner.setdefault(id(parameter), index) != index:
                    raise ModelError(
                        f"{self._model.config.model.kind}: layers {owner[id(parameter)]} and "
                        f"{index} share a parameter; tied weights are not supported"
                    )

    def layers(self) -> Iterator[tuple[int, list[nn.Module]]]:
        """Return the modules of each layer, with its index in the whole model."""
        return enumerate(self._layers, self.first)

    def trained_layers(self) -> set[int]:
        """Return the indexes of layers that have anything to train."""
        return {
            index
            for index, parts in self.layers()
            if any(p.requires_grad for part in parts for p in part.parameters())
        }

    def forward(
        self,
        x: Tensor,
        microbatch: MicrobatchId,
        after: Callable[[int, Tensor], None] = lambda layer, output: None,
    ) -> Tensor:
        """The last layer's output. Draws depend on the microbatch and the layer alone. `after` is
        called with each layer's output."""
        if not self._model.draws:
            return self._run(x, lambda layer: None, after)
        with drawing(self._seed, microbatch, x.device) as at_layer:
            return self._run(x, at_layer, after)

    def _run(
        self, x: Tensor, at_layer: Callable[[int], None], after: Callable[[int, Tensor], None]
    ) -> Tensor:
        for index, layer in self.layers():
            at_layer(index)
            for part in layer:
                x = part(x)
            if not isinstance(x, Tensor) or not x.is_floating_point():
                raise ModelError(
                    f"{self._model.config.model.kind}: layer {index} must return one floating "
                    f"tensor, not {type(x).__name__}"
                )
            after(index, x)
        return x

    def loss_sum(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the model's loss, summed over the targets, of what its last layer gives."""
        return self._model.loss_sum(output, targets)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that are trained, by their names in the whole model."""
        return {
            f"{name}.{inner}": parameter
            for name, part in zip(self._names, self.parts, strict=True)
            for inner, parameter in part.named_parameters()
            if parameter.requires_grad
        }

    def hidden_matrices(self) -> frozenset[str]:
        """Return the names of the weights of linear layers that are trained, but for the last one
        of the model's last layer, which is its head."""
        linear = [
            [inner for part in layer for inner in part.modules() if isinstance(inner, nn.Linear)]
            for layer in self._layers
        ]
        if self.last == len(self._model.layers):
            linear[-1] = linear[-1][:-1]
        weights = {id(inner._parameters.get("weight")) for layer in linear for inner in layer}
        return frozenset(name for name, x in self.trainable().items() if id(x) in weights)

    def tensors(self) -> dict[str, Tensor]:
        """Live parameters and persistent buffers, by their names in the whole model."""
        return {
            f"{name}.{inner}": tensor
            for name, part in zip(self._names, self.parts, strict=True)
            for inner, tensor in part.state_dict().items()
        }


def build_layer(model: Layered, index: int) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of one layer. First weights depend on (run.seed, index) alone.

    Raises ModelError when a part cannot be built.
    """
    config = model.config
    dtype: torch.dtype = getattr(torch, config.model.dtype)
    with building(seed_for(config.run.seed, "init", index)):
        for part in model.layers[index]:
            try:
                module = part.build()
            except (Exception, SystemExit) as error:
                raise ModelError(
                    f"{config.model.kind}: layer {index} cannot be built: {line_of(error)}"
                ) from error
            if not isinstance(module, nn.Module):
                raise ModelError(
                    f"{config.model.kind}: layer {index} must be an nn.Module, "
                    f"not {type(module).__name__}"
                )
            _refuse_lazy(config, index, module)
            yield part.name, _in_dtype(module, dtype)


def _refuse_lazy(config: RunConfig, index: int, module: nn.Module) -> None:
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(tensor):
            raise ModelError(
                f"{config.model.kind}: layer {index} makes its {name} on first use; give all "
                "sizes when it is made (Linear, say, and not LazyLinear)"
            )


def _in_dtype(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module with its parameters in the model's dtype, and those buffers that have torch's
    usual one: others were given theirs for a reason."""
    usual = {torch.float32, torch.get_default_dtype()}

    def cast(tensor: Tensor) -> Tensor:
        is_cast = isinstance(tensor, nn.Parameter) or tensor.dtype in usual
        return tensor.to(dtype) if is_cast and tensor.is_floating_point() else tensor

    return module._apply(cast)  # type: ignore[no-untyped-call,no-any-return]
