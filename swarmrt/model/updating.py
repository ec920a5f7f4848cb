"""The part of a stage that an optimizer changes: its parameters and their moments, flat.

With bfloat16 parameters are updated in float32, and the model computes with a rounded copy.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.model.flat import Flat
from swarmrt.model.optimizer import learning_rate, slots, update
from swarmrt.model.prediction import predict


class Updated:
    """The parameters of a `Flat`, their masters and moments."""

    def __init__(self, config: RunConfig, flat: Flat, *, apart: bool = False) -> None:
        """With `apart` the masters are a copy, and what they become is not brought into the
        model's parameters."""
        self._config, self._flat = config, flat
        self._rounds = flat.mixed and not apart
        is_copied = flat.mixed or apart
        self.masters = flat.values.to(flat.exact, copy=True) if is_copied else flat.values
        self.moments: dict[str, Tensor] = {
            slot: torch.zeros_like(self.masters) for slot in slots(config)
        }
        self._counts: dict[bool, Tensor] = {  # of AdamW's steps, one for each piece
            is_matrices: torch.zeros((), device=self.masters.device) for is_matrices in flat.pieces
        }

    def step(self, reduced: Tensor, scale: float, rate: float, scratch: Tensor) -> None:
        """Update with a flat gradient, times `scale`, which is written to `scratch`."""
        if reduced.device == scratch.device:
            torch.mul(reduced, scale, out=scratch)
        else:  # from the host, without a second copy on the device
            scratch.copy_(reduced).mul_(scale)
        for is_matrices, piece in self._flat.pieces.items():
            moments = {slot: values[piece] for slot, values in self.moments.items()}
            count = self._counts[is_matrices]
            args = (self._config, self.masters[piece], scratch[piece], moments, count, rate)
            update(*args, decayed=is_matrices)
        self._round_masters()

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
        for is_matrices, piece in self._flat.pieces.items():
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
        """Take over what `updated` has made, of all slices."""
        for where, made in pieces:
            for row, values in zip(self.rows, made.view(len(self.rows), -1), strict=True):
                row[where].copy_(values)
        for count in self._counts.values():
            count += 1
        self._round_masters()

    def expect(self, version: int, values: Tensor) -> None:
        """Write to `values`, flat as these, what is expected of the update of this version."""
        for is_matrices, piece in self._flat.pieces.items():
            moments = {slot: row[piece] for slot, row in self.moments.items()}
            count = int(self._counts[is_matrices])
            args = (self._config, version, self.masters[piece], moments, count)
            predict(*args, decayed=is_matrices, out=values[piece])

    def state(self) -> dict[str, Tensor]:
        """Live views: `optimizer.<slot>.<name>`, float32 masters where there are any, and AdamW's
        count of steps."""
        buffers = {"master": self.masters} if self._flat.mixed else {}
        state = {
            f"optimizer.{slot}.{name}": values
            for slot, flat in (buffers | self.moments).items()
            for name, values in self._flat.named(flat)
        }
        if self._config.optimizer.kind == "adamw":
            state["optimizer.step"] = next(iter(self._counts.values()))
        return state

    def restored(self) -> None:
        """Call after writing into the views that `state` gave."""
        first, *others = self._counts.values()
        for count in others:
            count.copy_(first)
        self._round_masters()

    def _round_masters(self) -> None:
        """Bring the masters' values into the model's own parameters."""
        if self._rounds:
            self._flat.values.copy_(self.masters)
