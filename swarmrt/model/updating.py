"""The part of a stage that an optimizer changes: its parameters and their moments, flat.

With bfloat16 parameters are updated in float32, and the model computes with a rounded copy.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.model.flat import Flat
from swarmrt.model.optimizer import learning_rate, update
from swarmrt.model.pieces import Piece, Row, range_of, slots, slots_of
from swarmrt.model.prediction import predict

Rows = dict[str, Row]
PARAMETERS = "parameters"  # the first of the rows


class LastMade:
    """The matrix that `updated` made last, whole: the next slice may go on within it. It is kept
    for one gradient alone."""

    def __init__(self) -> None:
        self.piece: Piece | None = None
        self.rows: Rows = {}


class Updated:
    """The parameters of a `Flat`, their masters and moments."""

    def __init__(self, config: RunConfig, flat: Flat, *, apart: bool = False) -> None:
        """With `apart` the masters are a copy, and what they become is not brought into the
        model's parameters."""
        self._config, self._flat = config, flat
        self._rounds = flat.mixed and not apart
        is_copied = flat.mixed or apart
        self.masters = flat.values.to(flat.exact, copy=True) if is_copied else flat.values
        self.moments = {slot: self._no_moments(slot) for slot in slots_of(config, flat.pieces)}
        self._counts: dict[Piece, Tensor] = {  # of steps, one for each piece, all the same
            piece: torch.zeros((), device=self.masters.device) for piece in flat.pieces
        }

    def _no_moments(self, slot: str) -> Row:
        where = range_of(self._config, self._flat.pieces, slot)
        return Row(where.start, torch.zeros_like(self.masters[where]))

    def step(self, reduced: Tensor, scale: float, rate: float, scratch: Tensor) -> None:
        """Update with a flat gradient, times `scale`, which is written to `scratch`."""
        if reduced.device == scratch.device:
            torch.mul(reduced, scale, out=scratch)
        else:  # from the host, without a second copy on the device
            scratch.copy_(reduced).mul_(scale)
        for piece in self._flat.pieces:
            count, gradient = self._counts[piece], scratch[piece.where]
            self._update(piece, piece.where, self.rows, gradient, count, rate)
        self._round_masters()

    def step_by_signs(self, signs: Tensor, rate: float) -> None:
        """Go by `rate` against signs, flat, which are 1, −1 or 0, after the decay of weights. Each
        operation rounds once."""
        for piece in self._flat.pieces:
            values = self.masters[piece.where]
            if piece.is_decayed:
                values.mul_(1.0 - rate * self._config.optimizer.weight_decay)
            values.sub_(signs[piece.where] * rate)
        self._round_masters()

    def _update(
        self,
        piece: Piece,
        where: slice,
        rows: Rows,
        gradient: Tensor,
        count: Tensor,
        rate: float,
    ) -> None:
        """Update what these rows have of a slice of a piece."""
        values = rows[PARAMETERS].of(where)
        moments = self._moments(piece, where, rows)
        update(self._config, piece, values, gradient, moments, count, rate)

    def _moments(self, piece: Piece, where: slice, rows: Rows) -> dict[str, Tensor]:
        return {slot: rows[slot].of(where) for slot in slots(self._config, piece.rule)}

    @property
    def rows(self) -> Rows:
        """Return all that an update changes value by value: the parameters, in at least float32,
        and each of the moments."""
        return {PARAMETERS: Row(0, self.masters)} | self.moments

    def lengths(self, where: slice) -> list[int]:
        """Return how many values each of the rows has of a slice of the parameters."""
        return [len(row.of(where)) for row in self.rows.values()]

    def updated(
        self, where: slice, reduced: Tensor, scale: float, version: int, last: LastMade
    ) -> Tensor:
        """Return what an update would make of a slice of all rows, one row after the other, on the
        host. Nothing is changed. `reduced` is the whole flat gradient."""
        rate = learning_rate(self._config, version)
        made = {slot: row.copy_of(where) for slot, row in self.rows.items()}
        for piece in self._flat.pieces:
            here = piece.within(where)
            if here.start >= here.stop:
                continue
            if piece.shape is None:
                self._update_apart(piece, here, made, reduced, scale, rate)
                continue
            if last.piece != piece:
                last.rows = {slot: row.copy_of(piece.where) for slot, row in self.rows.items()}
                self._update_apart(piece, piece.where, last.rows, reduced, scale, rate)
                last.piece = piece
            for slot, row in made.items():
                row.of(here).copy_(last.rows[slot].of(here))
        return torch.cat([row.values for row in made.values()]).cpu()

    def _update_apart(
        self, piece: Piece, where: slice, rows: Rows, reduced: Tensor, scale: float, rate: float
    ) -> None:
        """Update rows that are no state's yet."""
        gradient = reduced[where].to(self.masters.device) * scale
        self._update(piece, where, rows, gradient, self._counts[piece].clone(), rate)

    def adopt(self, pieces: Iterable[tuple[slice, Tensor]]) -> None:
        """Take over what `updated` has made, of all slices."""
        for where, made in pieces:
            parts = torch.split(made, self.lengths(where))
            for row, values in zip(self.rows.values(), parts, strict=True):
                row.of(where).copy_(values)
        for count in self._counts.values():
            count += 1
        self._round_masters()

    def expect(self, version: int, values: Tensor) -> None:
        """Write to `values`, flat as these, what is expected of the update of this version."""
        for piece in self._flat.pieces:
            where, count = piece.where, int(self._counts[piece])
            moments = self._moments(piece, where, self.rows)
            args = (self._config, piece, version, self.masters[where], moments, count)
            predict(*args, out=values[where])

    def state(self) -> dict[str, Tensor]:
        """Live views: `optimizer.<slot>.<name>`, float32 masters where there are any, and the count
        of steps but for SGD."""
        buffers = {"master": Row(0, self.masters)} if self._flat.mixed else {}
        state = {
            f"optimizer.{slot}.{name}": values
            for slot, row in (buffers | self.moments).items()
            for name, values in self._flat.named_in(row)
        }
        if self._config.optimizer.kind != "sgd":
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
