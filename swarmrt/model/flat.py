"""A stage's parameters, gradients and moments as flat buffers.

Layout: matrices first, then vectors (what is decayed and what is not), each by name. The model's
parameters are views of the buffer, and autograd adds into views of another, so that a gradient
is reduced and a parameter digested in one piece.

With bfloat16 there are two more: gradients are summed and parameters updated in float32, and
the model computes with a rounded copy (mixed precision: Micikevicius et al., 2018).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from swarmrt.config import RunConfig
from swarmrt.errors import ModelError
from swarmrt.model.optimizer import is_decayed, learning_rate, make_optimizer, set_learning_rate


class Flat:
    """Takes over the storage of the given parameters. They must all have the model's dtype."""

    def __init__(
        self, config: RunConfig, parameters: dict[str, nn.Parameter], device: torch.device
    ) -> None:
        self._config = config
        self._order = sorted(parameters, key=lambda name: (not is_decayed(parameters[name]), name))
        self._shapes = {name: parameters[name].shape for name in self._order}
        self.num_parameters = sum(shape.numel() for shape in self._shapes.values())
        dtype: torch.dtype = getattr(torch, config.model.dtype)
        exact = torch.promote_types(dtype, torch.float32)
        self._values = torch.empty(self.num_parameters, dtype=dtype, device=device)
        self._added = torch.zeros_like(self._values)
        self._adopt(parameters)
        self.mixed = dtype != exact
        self.masters = self._values.to(exact) if self.mixed else self._values
        self.gradients = self._added.to(exact) if self.mixed else self._added
        self._num_decayed = sum(
            shape.numel() for shape in self._shapes.values() if len(shape) >= 2
        )
        self._pieces = [
            (start, stop, nn.Parameter(self.masters[start:stop]))
            for start, stop in ((0, self._num_decayed), (self._num_decayed, self.num_parameters))
        ]
        for start, stop, piece in self._pieces:
            piece.grad = self.gradients[start:stop]
        (_, _, decayed), (_, _, plain) = self._pieces
        self._optimizer = make_optimizer(
            config, [decayed] if len(decayed) else [], [plain] if len(plain) else []
        )

    def _adopt(self, parameters: dict[str, nn.Parameter]) -> None:
        for name, values in self.named(self._values):
            parameter = parameters[name]
            if parameter.dtype != self._values.dtype:
                raise ModelError(
                    f"parameter {name} is {parameter.dtype}; all must be {self._values.dtype}"
                )
            values.copy_(parameter.detach())
            parameter.data = values
        for name, added in self.named(self._added):
            parameters[name].grad = added

    def named(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Views of a buffer in this layout, by name, in the layout's order."""
        start = 0
        for name in self._order:
            shape = self._shapes[name]
            yield name, flat[start : start + shape.numel()].view(shape)
            start += shape.numel()

    def collect(self) -> None:
        """After each backward: bring what autograd added into `gradients`."""
        if self.mixed:
            self.gradients += self._added
            self._added.zero_()

    def clear_gradients(self) -> None:
        self.gradients.zero_()
        if self.mixed:
            self._added.zero_()

    def step(self, reduced: Tensor, scale: float, version: int) -> None:
        """Update with a flat gradient, times `scale`. The accumulated gradients are used up."""
        self.gradients.copy_(reduced)
        self.gradients *= scale
        set_learning_rate(self._optimizer, learning_rate(self._config, version))
        self._optimizer.step()
        self.round_masters()
        self.clear_gradients()

    def round_masters(self) -> None:
        """Bring the masters' values into the model's own parameters."""
        if self.mixed:
            self._values.copy_(self.masters)

    def optimizer_state(self) -> dict[str, Tensor]:
        """Live views: `optimizer.<slot>.<name>`, and float32 masters where there are any."""
        state: dict[str, Tensor] = {}
        if self.mixed:
            state |= {f"optimizer.master.{name}": v for name, v in self.named(self.masters)}
        for key, value in self._moments():
            state[key] = value
        return state

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        """Per-parameter views of each piece's moments; scalars such as the step count as are."""
        for start, stop, piece in self._pieces:
            names = self._names_within(start, stop)
            for slot, value in self._optimizer.state[piece].items():
                if value.dim() == 0:
                    if names:
                        yield f"optimizer.{slot}.{'matrices' if start == 0 else 'vectors'}", value
                    continue
                offset = 0
                for name in names:
                    shape = self._shapes[name]
                    view = value[offset : offset + shape.numel()].view(shape)
                    yield f"optimizer.{slot}.{name}", view
                    offset += shape.numel()

    def _names_within(self, start: int, stop: int) -> list[str]:
        decayed = start == 0 and stop == self._num_decayed
        return [name for name in self._order if (len(self._shapes[name]) >= 2) == decayed]
