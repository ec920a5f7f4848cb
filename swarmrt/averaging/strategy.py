"""A strategy answers which of the parameters a round is about, and what the mean move makes of the
anchor.

The parameters of a stage are flat, matrices first, then vectors. The *anchor* is the last version
that all replicas of the stage agreed on, bit by bit. A replica's *move* is what its own steps have
changed of it. A round takes the mean of the moves, weighted by the microbatches behind them.

Both answers must be functions of what they are given alone: every replica makes the next
anchor for itself, and those that differ are left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from swarmrt.config import RunConfig

Slots = dict[str, Tensor]  # by name, the slices that belong to the range of a round


class Strategy(ABC):
    """Made once for each stage, with the number of parameters that it trains."""

    slots: tuple[str, ...] = ()
    """Names of buffers that belong to the anchor, each as long as the parameters. They are zeros at
    first, and part of every checkpoint."""

    def __init__(self, config: RunConfig, num_parameters: int) -> None:
        self.num_parameters = num_parameters
        self.last_round = config.run.steps - 1

    def where(self, version: int) -> slice:
        """Return the range of the parameters that the round after this version is about. What lies
        outside stays as it is, and each replica keeps what it has changed there. The last round
        is about all of them."""
        return self.everything if version >= self.last_round else self.range_of(version)

    @property
    def turns(self) -> int:
        """Return after how many rounds every parameter was in one."""
        return 1

    def numel(self, version: int) -> int:
        """Return how many parameters that is."""
        where = self.where(version)
        return int(where.stop - where.start)

    @property
    def everything(self) -> slice:
        """Return the range of all parameters."""
        return slice(0, self.num_parameters)

    def range_of(self, version: int) -> slice:
        """Return the range of a round that is not the last one: by default, everything."""
        return self.everything

    @abstractmethod
    def advance(self, anchor: Tensor, move: Tensor, slots: Slots) -> None:
        """Make the next anchor in place, of the mean move. All are slices of the round's range, in
        at least float32. Use operations that round once, such as `mul_` and `add_` without
        `alpha`: then replicas on unlike hardware come to equal bits."""


def one_of(ranges: int, turn: int, num_parameters: int) -> slice:
    """Return one of so many ranges of nearly equal length, which take turns."""
    index = turn % ranges
    return slice(
        index * num_parameters // ranges,
        (index + 1) * num_parameters // ranges,
    )
