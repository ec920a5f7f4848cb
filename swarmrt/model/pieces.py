"""The pieces of a stage's flat parameters that an update takes one at a time, and by which rule.

Layout: with Muon first the hidden matrices, each of which is a piece; then all other matrices,
which are decayed, and all vectors, which are not. Each of the three is in the order of names.

A row is what an update changes value by value: the parameters, and each of the moments, which a
rule keeps of its own pieces only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from swarmrt.config import RunConfig

Rule = Literal["adamw", "sgd", "muon"]


@dataclass(frozen=True)
class Piece:
    """A slice of the layout. One with a shape is a matrix, and can only be updated as a whole."""

    rule: Rule
    start: int
    stop: int
    is_decayed: bool
    shape: torch.Size | None = None

    @property
    def where(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def size(self) -> int:
        """The number of parameters."""
        return self.stop - self.start

    def goes_on(self, before: Piece) -> bool:
        """Return whether it is updated with the piece before it, as one."""
        return self.shape is None and (self.rule, self.is_decayed) == (
            before.rule,
            before.is_decayed,
        )

    def within(self, where: slice) -> slice:
        """Return what it has of another slice; it ends before it starts, if that is nothing."""
        return slice(max(self.start, where.start), min(self.stop, where.stop))


class Row(NamedTuple):
    """The values that one row has, from one parameter of the layout on."""

    start: int
    values: Tensor

    def of(self, where: slice) -> Tensor:
        """Return a view of what it has of a slice of the layout."""
        first, end = (max(0, at - self.start) for at in (where.start, where.stop))
        return self.values[first:end]

    def copy_of(self, where: slice) -> Row:
        """Return what it has of a slice, as a row of its own."""
        return Row(max(self.start, where.start), self.of(where).clone())


def is_decayed(parameter: Tensor) -> bool:
    """Weight decay is for matrices; gains and biases are left alone."""
    return parameter.dim() >= 2


def rule_of(config: RunConfig, *, is_hidden: bool) -> Rule:
    """Return what updates a parameter: Muon is for hidden matrices, and goes with AdamW."""
    kind = config.optimizer.kind
    return "adamw" if kind == "muon" and not is_hidden else kind


def slots(config: RunConfig, rule: Rule) -> tuple[str, ...]:
    """Names of the moments that a rule keeps of each parameter."""
    match rule:
        case "adamw":
            return ("exp_avg", "exp_avg_sq")
        case "sgd":
            return ("momentum_buffer",) if config.optimizer.momentum else ()
        case "muon":
            return ("momentum_buffer",)


def most_rows(config: RunConfig) -> int:
    """Return how many values an update changes of a parameter at the most, itself included."""
    return 1 + max(
        len(slots(config, rule_of(config, is_hidden=hidden))) for hidden in (True, False)
    )


def piece_of(config: RunConfig, parameter: Tensor, *, is_hidden: bool, start: int = 0) -> Piece:
    """Return the piece that a parameter is, or belongs to, from `start` of a layout on."""
    rule = rule_of(config, is_hidden=is_hidden)
    shape = parameter.shape if rule == "muon" else None
    return Piece(rule, start, start + parameter.numel(), is_decayed(parameter), shape)


def in_order(
    config: RunConfig, parameters: Mapping[str, Tensor], hidden: Collection[str]
) -> list[str]:
    """Return the names of parameters in the layout's order."""

    def place(name: str) -> tuple[bool, bool, str]:
        is_whole = rule_of(config, is_hidden=name in hidden) == "muon"
        return not is_whole, not is_decayed(parameters[name]), name

    return sorted(parameters, key=place)


def pieces_of(
    config: RunConfig, parameters: Mapping[str, Tensor], hidden: Collection[str]
) -> list[Piece]:
    """Return the pieces of these parameters' layout, none of them empty."""
    pieces: list[Piece] = []
    start = 0
    for name in in_order(config, parameters, hidden):
        piece = piece_of(config, parameters[name], is_hidden=name in hidden, start=start)
        if pieces and piece.goes_on(pieces[-1]):
            pieces[-1] = replace(pieces[-1], stop=piece.stop)
        else:
            pieces.append(piece)
        start = piece.stop
    return [piece for piece in pieces if piece.start < piece.stop]


def range_of(config: RunConfig, pieces: Iterable[Piece], slot: str) -> slice:
    """Return which of the layout's parameters have this moment: they lie together."""
    having = [piece for piece in pieces if slot in slots(config, piece.rule)]
    return slice(min(piece.start for piece in having), max(piece.stop for piece in having))


def slots_of(config: RunConfig, pieces: Iterable[Piece]) -> list[str]:
    """Return the names of all moments that these have, each once."""
    return list(dict.fromkeys(slot for piece in pieces for slot in slots(config, piece.rule)))
