"""A stage's parameters and gradients as flat buffers.

The order of parameters in them is in `pieces`. The model's parameters are views of the buffer, and
autograd adds into views of another, so that a gradient is reduced and a parameter digested in one
piece.

With bfloat16 there is one more: gradients are summed in float32 (mixed precision: Micikevicius et
al., 2018).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from swarmrt.config import RunConfig
from swarmrt.errors import ModelError
from swarmrt.model.pieces import Row, in_order, pieces_of


class Flat:
    """Takes over the storage of the given parameters. They must all have the model's dtype.
    `hidden` names the matrices that Muon is for."""

    def __init__(
        self,
        config: RunConfig,
        parameters: dict[str, nn.Parameter],
        hidden: Collection[str],
        device: torch.device,
    ) -> None:
        self._order = in_order(config, parameters, hidden)
        self._shapes = {name: parameters[name].shape for name in self._order}
        self.num_parameters = sum(shape.numel() for shape in self._shapes.values())
        dtype: torch.dtype = getattr(torch, config.model.dtype)
        self.exact = torch.promote_types(dtype, torch.float32)  # of what is added up
        self.mixed = dtype != self.exact
        self.values = torch.empty(self.num_parameters, dtype=dtype, device=device)
        for name, values in self.named(self.values):
            _take_over(parameters[name], name, values)
        self.pieces = pieces_of(config, parameters, hidden)

    def named(self, flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Views of a buffer in this layout, by name, in the layout's order."""
        return self.named_in(Row(0, flat))

    def named_in(self, row: Row) -> Iterator[tuple[str, Tensor]]:
        """Views of what a row has, by the names of its parameters, in the layout's order."""
        start = 0
        for name in self._order:
            shape = self._shapes[name]
            values = row.of(slice(start, start + shape.numel()))
            if values.numel() == shape.numel():
                yield name, values.view(shape)
            start += shape.numel()


def _take_over(parameter: nn.Parameter, name: str, values: Tensor) -> None:
    if parameter.dtype != values.dtype:
        raise ModelError(f"parameter {name} is {parameter.dtype}; all must be {values.dtype}")
    values.copy_(parameter.detach())
    parameter.data = values


class Accumulators:
    """The sums of gradients of the parameters that a `Flat` has taken over."""

    def __init__(self, flat: Flat, parameters: dict[str, nn.Parameter]) -> None:
        self._added = torch.zeros_like(flat.values)
        self.take_from(flat, parameters)
        self._mixed = flat.mixed
        self.sums = self._added.to(flat.exact) if self._mixed else self._added

    def take_from(self, flat: Flat, parameters: dict[str, nn.Parameter]) -> None:
        """Have autograd add the gradients of these parameters here, from now on."""
        for name, added in flat.named(self._added):
            parameters[name].grad = added

    def collect(self) -> None:
        """Bring what autograd added into `sums`, after each backward."""
        if self._mixed:
            self.sums += self._added
            self._added.zero_()

    def clear(self) -> None:
        self.sums.zero_()
        if self._mixed:
            self._added.zero_()
