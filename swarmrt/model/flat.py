"""A stage's parameters, gradients and moments as flat buffers.

Layout: matrices first, then vectors (what is decayed and what is not), each by name. The model's
parameters are views of the buffer, and autograd adds into views of another, so that a gradient
is reduced and a parameter digested in one piece.

With bfloat16 there are two more: gradients are summed and parameters updated in float32, and
the model computes with a rounded copy (mixed precision: Micikevicius et al., 2018).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from swarmrt.config import RunConfig
from swarmrt.errors import ModelError
from swarmrt.model.optimizer import (
    is_decayed,
    learning_rate,
    slots,
    update,
)


class Flat:
    """Takes over the storage of the given parameters. They must all have the model's dtype."""

    def __init__(
        self,
        config: RunConfig,
        parameters: dict[str, nn.Parameter],
        device: torch.device,
        twin: Flat | None = None,
    ) -> None:
        """A `twin` has the same parameters with the weights of another version; both go on with
        one optimizer's state."""
        self._config = config
        self._order = sorted(parameters, key=lambda name: (not is_decayed(parameters[name]), name))
        self._shapes = {name: parameters[name].shape for name in self._order}
        self.num_parameters = sum(shape.numel() for shape in self._shapes.values())
        dtype: torch.dtype = getattr(torch, config.model.dtype)
        exact = torch.promote_types(dtype, torch.float32)
        self._values = torch.empty(self.num_parameters, dtype=dtype, device=device)
        self._added = torch.zeros(self.num_parameters, dtype=dtype, device=device)
        self._adopt(parameters)
        self.mixed = dtype != exact
        self.masters = self._values.to(exact) if self.mixed else self._values
        self.gradients = self._added.to(exact) if self.mixed else self._added
        self.moments: dict[str, Tensor] = (
            {
                slot: torch.zeros(self.num_parameters, dtype=exact, device=device)
                for slot in slots(config)
            }
            if twin is None
            else twin.moments
        )
        end_of_matrices = sum(shape.numel() for shape in self._shapes.values() if len(shape) >= 2)
        self._pieces = {
            is_matrices: piece
            for is_matrices, piece in (
                (True, slice(0, end_of_matrices)),
                (False, slice(end_of_matrices, self.num_parameters)),
            )
            if piece.start < piece.stop
        }
        self._counts: dict[
            bool, Tensor
        ] = (  # of steps: AdamW's, one for each piece that is updated
            {is_matrices: torch.zeros((), device=device) for is_matrices in self._pieces}
            if twin is None
            else twin._counts
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
        """Bring what autograd added into `gradients`, after each backward."""
        if self.mixed:
            self.gradients += self._added
            self._added.zero_()

    def clear_gradients(self) -> None:
        self.gradients.zero_()
        if self.mixed:
            self._added.zero_()

    def step(self, reduced: Tensor, scale: float, version: int) -> None:
        """Update with a flat gradient, times `scale`. The accumulated gradients are used up."""
        if reduced.device == self.gradients.device:
            torch.mul(reduced, scale, out=self.gradients)
        else:  # from the host, without a second copy on the device
            self.gradients.copy_(reduced).mul_(scale)
        rate = learning_rate(self._config, version)
        for is_matrices, piece in self._pieces.items():
            moments = {slot: values[piece] for slot, values in self.moments.items()}
            count = self._counts[is_matrices]
            values, gradient = self.masters[piece], self.gradients[piece]
            update(self._config, values, gradient, moments, count, rate, decayed=is_matrices)
        self._round_masters()
        self.clear_gradients()

    @property
    def rows(self) -> tuple[Tensor, ...]:
        """Return all that an update changes value by value: the parameters, in at least float32,
        and each of the moments."""
        return (self.masters, *self.moments.values())

    def updated(self, where: slice, reduced: Tensor, scale: float, version: int) -> Tensor:
        """Return what an update would make of a slice of all rows, one row after the other, on the
        host. Nothing is changed. `reduced` is that slice of the flat gradient."""
        made = torch.stack([row[where] for row in self.rows])
        gradient = reduced.to(made.device) * scale
        rate = learning_rate(self._config, version)
        for is_matrices, piece in self._pieces.items():
            start, stop = max(piece.start, where.start), min(piece.stop, where.stop)
            if start >= stop:
                continue
            here = slice(start - where.start, stop - where.start)
            values, *rest = (row[here] for row in made)
            moments = dict(zip(self.moments, rest, strict=True))
            count = self._counts[is_matrices].clone()
            args = (self._config, values, gradient[here], moments, count, rate)
            update(*args, decayed=is_matrices)
        return made.flatten().cpu()

    def adopt(self, pieces: Iterable[tuple[slice, Tensor]]) -> None:
        """Take over what `updated` has made, of all slices. The accumulated gradients are used
        up."""
        for where, made in pieces:
            for row, values in zip(self.rows, made.view(len(self.rows), -1), strict=True):
                row[where].copy_(values)
        for count in self._counts.values():
            count += 1
        self._round_masters()
        self.clear_gradients()

    def optimizer_state(self) -> dict[str, Tensor]:
        """Live views: `optimizer.<slot>.<name>`, float32 masters where there are any, and AdamW's
        count of steps."""
        buffers = {"master": self.masters} if self.mixed else {}
        state = {
            f"optimizer.{slot}.{name}": values
            for slot, flat in (buffers | self.moments).items()
            for name, values in self.named(flat)
        }
        if self._config.optimizer.kind == "adamw":
            state["optimizer.step"] = next(iter(self._counts.values()))
        return state

    def restored(self) -> None:
        """Call after writing into the views that `optimizer_state` gave."""
        first, *others = self._counts.values()
        for count in others:
            count.copy_(first)
        self._round_masters()
        self.clear_gradients()

    def _round_masters(self) -> None:
        """Bring the masters' values into the model's own parameters."""
        if self.mixed:
            self._values.copy_(self.masters)
