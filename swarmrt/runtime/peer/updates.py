"""The state after a round's update, while its parts come together from their owners.

A part has its slice of the parameters, then of each moment, in at least float32 and as they are:
all adopt these bytes (promise P2). The parts lie one after the other, so what is sent of them are
views.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from swarmrt.config import RunConfig
from swarmrt.ids import PeerId
from swarmrt.kernels.digest import digest
from swarmrt.model.pieces import most_rows
from swarmrt.model.stage import Stage
from swarmrt.model.strategies import strategy_of
from swarmrt.model.updating import LastMade
from swarmrt.runtime.peer.parts import combined_bytes, part_range
from swarmrt.scheduler.events import PartUnfit, PartUpdated, UpdateJoined
from swarmrt.scheduler.instructions import DropPart, JoinUpdate, KeepPart, UpdatePart
from swarmrt.scheduler.peer.updating.cutting import MAX_PART_BYTES

Key = tuple[int, int]  # step, round
LIKE_A_STAGE = 1 << 12  # parameters: ratios hardly depend on how many there are
Lengths = Callable[[slice], list[int]]  # of each row, in a slice of the parameters
Early = Mapping[int, torch.Tensor]  # parts that came before the Prepare, by index


class NextState:
    """The state after one round's update."""

    def __init__(self, numel: int, lengths: Lengths, parts: int, dtype: torch.dtype) -> None:
        self._numel, self._lengths, self._parts = numel, lengths, parts
        self.values = torch.empty(sum(lengths(slice(0, numel))), dtype=dtype)
        self.last = LastMade()

    def where(self, index: int) -> slice:
        """Return which of the parameters a part is of."""
        return part_range(self._numel, index, self._parts)

    def part(self, index: int) -> torch.Tensor:
        """A view."""
        where = self.where(index)
        start = sum(self._lengths(slice(0, where.start)))
        return self.values[start : start + sum(self._lengths(where))]

    def pieces(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Return all parts, with what they are of."""
        return ((self.where(index), self.part(index)) for index in range(self._parts))


Expected = Callable[[NextState, int], torch.Tensor]  # a part, by its index


class Updates:
    """The parts of next states that a peer holds.

    What computes is given all that it needs, and may run on another thread.
    """

    def __init__(self, me: PeerId, stage: Stage) -> None:
        self._me = me
        self._numel, self._dtype = stage.gradients().numel(), stage.gradients().dtype
        self._rounding = stage.rounding
        self._rows, self._lengths = stage.state_rows, stage.row_lengths
        self._early: dict[tuple[int, int, int, PeerId], torch.Tensor] = {}
        self._states: dict[Key, NextState] = {}

    def fits(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Return whether a message's tensors may be a part of such a state."""
        if len(tensors) != 1 or tensors[0].dim() != 1:
            return False
        most_bytes = MAX_PART_BYTES + self._rows * self._dtype.itemsize
        return tensors[0].dtype == self._dtype and tensors[0].nbytes <= most_bytes

    def state(self, step: int, number: int, parts: int) -> NextState:
        """Return the next state by a round that is under way."""
        if (step, number) not in self._states:
            how = (self._numel, self._lengths, parts, self._dtype)
            self._states[step, number] = NextState(*how)
        return self._states[step, number]

    def unfit(
        self, what: KeepPart | JoinUpdate, index: int, sender: PeerId, part: torch.Tensor
    ) -> PartUnfit | None:
        """Return what is wrong with a part of this round, if anything is."""
        size = sum(self._lengths(part_range(self._numel, index, what.parts)))
        if len(part) == size:
            return None
        reason = f"has {len(part)} values where {size} belong"
        return PartUnfit(what.step, what.round, sender, reason)

    def keep(self, what: KeepPart, tensor: torch.Tensor) -> None:
        """Keep a part of a round that is not known yet."""
        self._early[what.step, what.round, what.index, what.sender] = tensor

    def take_early(self, what: JoinUpdate) -> Early | PartUnfit:
        """Take the parts that came before the Prepare; or say that one of them cannot be used."""
        early: dict[int, torch.Tensor] = {}
        for key in [key for key in self._early if key[:2] == (what.step, what.round)]:
            index, sender, part = key[2], key[3], self._early.pop(key)
            unfit = self.unfit(what, index, sender, part)
            if unfit is not None:
                return unfit
            early[index] = part
        return early

    def take(self, step: int, number: int) -> NextState:
        """Take the state of a round that is joined, to adopt it."""
        return self._states.pop((step, number))

    def drop_part(self, what: DropPart) -> None:
        """Forget one that came early, and is none of its round."""
        self._early.pop((what.step, what.round, what.index, what.sender), None)

    def drop(self, step: int, number: int) -> None:
        """Forget a round."""
        self._states.pop((step, number), None)
        for key in [key for key in self._early if key[:2] == (step, number)]:
            del self._early[key]

    # ------------------------------------------------------------------ computing

    def make(
        self, what: UpdatePart, state: NextState, stage: Stage, mean: torch.Tensor, scale: float
    ) -> PartUpdated:
        """Make a part that this peer owns, of the mean gradient."""
        state.part(what.index).copy_(made_of(stage, what.step, mean, scale, state, what.index))
        return PartUpdated(what.step, what.round, what.index)

    def place(self, state: NextState, index: int, part: torch.Tensor) -> None:
        """Take another owner's part."""
        state.part(index).copy_(part)

    def join(
        self, what: JoinUpdate, state: NextState, early: Early, expected: Expected | None = None
    ) -> UpdateJoined | PartUnfit:
        """Return the digest of the whole state: all parts are here. What is `expected` of other
        owners is made here once more, and may differ by what hardware rounds."""
        for index, part in early.items():
            self.place(state, index, part)
        for index in range(what.parts) if expected is not None else ():
            assert expected is not None
            owner = what.owners[index % len(what.owners)]
            if owner != self._me and not self._is_close(state, index, expected(state, index)):
                reason = "is not what an update makes of the gradient"
                return PartUnfit(what.step, what.round, owner, reason)
        return UpdateJoined(what.step, what.round, digest(state.values))

    def _is_close(self, state: NextState, index: int, expected: torch.Tensor) -> bool:
        """Return whether two updates of a slice differ by rounding alone: each row by little beside
        its largest value. Where an update is not finite nothing can be said."""
        lengths = self._lengths(state.where(index))
        parts = (torch.split(part, lengths) for part in (state.part(index), expected))
        rows = zip(*parts, strict=True)
        return not expected.isfinite().all() or all(self._is_rounded(*row) for row in rows)

    def _is_rounded(self, made: torch.Tensor, own: torch.Tensor) -> bool:
        if not len(own):
            return True
        most = self._rounding * own.abs().max()
        return bool(((made - own).abs() <= most + torch.finfo(self._dtype).tiny).all())


def turns_of(config: RunConfig) -> int:
    """Return after how many rounds every parameter was in one, as far as is known: a strategy of
    the user's own is code for peers alone."""
    averaging = config.averaging
    if not averaging.is_on or averaging.is_own:
        return 1
    return strategy_of(config, LIKE_A_STAGE).turns


def made_of(
    stage: Stage, step: int, mean: torch.Tensor, scale: float, state: NextState, index: int
) -> torch.Tensor:
    """Return what an update by the mean gradient makes of a part."""
    return stage.updated(step, state.where(index), mean, scale, state.last)


def state_gradients(config: RunConfig) -> float:
    """Return how many times the bytes of what replicas combine, as it travels, a state has at the
    most."""
    dtype = torch.promote_types(getattr(torch, config.model.dtype), torch.float32)
    gradient = torch.empty(LIKE_A_STAGE, dtype=dtype)
    averaging = config.averaging
    if not averaging.is_on or averaging.is_own:  # that code is for peers alone
        state_bytes = most_rows(config) * gradient.nbytes
        return state_bytes / combined_bytes(config, gradient, lambda _: len(gradient))
    strategy = strategy_of(config, len(gradient))
    rows = len(strategy.slots) + (most_rows(config) if averaging.sync_steps else 1)
    return rows * gradient.nbytes / combined_bytes(config, gradient, strategy.numel)
