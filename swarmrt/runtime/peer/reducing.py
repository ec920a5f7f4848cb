"""The acts of a peer in a reduce: parts are kept, sent, summed and combined, and applied.

The arithmetic is that of `parts`, for gradients, and of `updates`, for states that owners make.
Here it is handed over to the threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from swarmrt.messages import Part
from swarmrt.model.stage import Stage
from swarmrt.runtime.computing.computations import Computations, Computed, Copied
from swarmrt.runtime.peer.jobs import Jobs
from swarmrt.runtime.peer.parts import Mean, Parts
from swarmrt.runtime.peer.updates import Updates, made_of
from swarmrt.runtime.process.process import Process
from swarmrt.runtime.process.shell import Tensors
from swarmrt.scheduler.events import PartUnfit, Stepped
from swarmrt.scheduler.instructions import (
    CombineParts,
    Contribute,
    DropPart,
    DropRound,
    GradientPart,
    JoinUpdate,
    KeepPart,
    StepOptimizer,
    SumPart,
    UpdatedPart,
    UpdatePart,
)

Made = Callable[[tuple[Stepped, Copied | None]], None]


class Reducing:
    def __init__(
        self,
        process: Process,
        jobs: Jobs,
        computations: Computations,
        parts: Parts,
        updates: Updates,
        made: Made,
    ) -> None:
        """`made` takes the version that an update makes."""
        self._process, self._jobs, self._computations = process, jobs, computations
        self._parts, self._updates, self._made = parts, updates, made

    @property
    def _stage(self) -> Stage:
        return self._computations.stage

    def fits(self, part: Part, tensors: Tensors) -> bool:
        """Return whether the tensors are what a part may be."""
        if part.updated:
            return self._updates.fits(tensors)
        return self._parts.fits(tensors)

    # ------------------------------------------------------------------ parts on their way

    def contribute(self, what: Contribute) -> None:
        """Have fixed what this peer gives a round."""
        self._jobs.compute(self._computations.contribute(what), self._contributed)

    def _contributed(self, outcome: Computed) -> None:
        if callable(outcome):
            self._jobs.wait_for_host(outcome, self._process.feed)
        else:
            self._process.feed(outcome)

    def encode(self, part: GradientPart, send: Callable[[torch.Tensor], None]) -> None:
        """Have a slice of what this peer gives encoded, and sent."""
        mine = self._computations.given(part.step, part.round, part.index, part.parts)
        self._jobs.reduce(partial(self._parts.encode, mine), send)

    def sum_of(self, part: GradientPart) -> torch.Tensor:
        return self._parts.sum_of(part.step, part.round, part.index)

    def updated(self, part: UpdatedPart) -> torch.Tensor:
        return self._updates.state(part.step, part.round, part.parts).part(part.index)

    def keep(self, keep: KeepPart) -> None:
        """Keep a part that has come, or take what it says where its round is known."""
        part = self._process.arrived[0]
        if keep.updated:
            self._keep_updated(keep, part)
            return
        is_ahead = keep.step > self._stage.version and self._parts.are_encoded
        if not (keep.summed and keep.parts) or is_ahead:  # decoded when their turn comes
            self._parts.keep(keep, part)
            return
        unfit = self._parts.unfit(keep, keep.index, keep.sender, part)
        if unfit is not None:
            self._process.feed(unfit)
            return
        mean = self._parts.mean(keep.step, keep.round, keep.parts)
        self._jobs.reduce(partial(self._parts.place, mean, keep.index, part))

    def _keep_updated(self, keep: KeepPart, part: torch.Tensor) -> None:
        if not keep.parts:
            self._updates.keep(keep, part)
            return
        unfit = self._updates.unfit(keep, keep.index, keep.sender, part)
        if unfit is not None:
            self._process.feed(unfit)
            return
        state = self._updates.state(keep.step, keep.round, keep.parts)
        self._jobs.reduce(partial(self._updates.place, state, keep.index, part))

    def drop_part(self, what: DropPart) -> None:
        (self._updates if what.updated else self._parts).drop_part(what)

    def drop_round(self, what: DropRound) -> None:
        self._parts.drop(what.step, what.round)
        self._updates.drop(what.step, what.round)
        self._computations.drop_contribution(what.step, what.round)

    # ------------------------------------------------------------------ sums, and what follows

    def sum_part(self, part: SumPart) -> None:
        mean = self._mean(part)
        slices = self._parts.take_slices(part)
        if isinstance(slices, PartUnfit):
            self._process.feed(slices)
            return
        mine = self._computations.given(part.step, part.round, part.index, part.parts)
        add = partial(self._parts.sum_up, part, mean, slices, mine)
        self._jobs.reduce(add, self._process.feed)

    def combine(self, what: CombineParts) -> None:
        mean = self._mean(what)
        early = self._parts.take_early_sums(what)
        if isinstance(early, PartUnfit):
            self._process.feed(early)
            return
        combine = partial(self._parts.combine, what, mean, early)
        self._jobs.reduce(combine, self._process.feed)

    def update_part(self, what: UpdatePart) -> None:
        state = self._updates.state(what.step, what.round, what.parts)
        mean = self._parts.values(what.step, what.round)
        scale = self._computations.clip_scale(what.norm)
        make = partial(self._updates.make, what, state, self._stage, mean, scale)
        self._jobs.reduce(make, self._process.feed)

    def join(self, what: JoinUpdate) -> None:
        early = self._updates.take_early(what)
        if isinstance(early, PartUnfit):
            self._process.feed(early)
            return
        state = self._updates.state(what.step, what.round, what.parts)
        expected = None
        if what.owners:
            mean = self._parts.values(what.step, what.round)
            scale = self._computations.clip_scale(what.norm)
            expected = partial(made_of, self._stage, what.step, mean, scale)
        join = partial(self._updates.join, what, state, early, expected)
        self._jobs.reduce(join, self._process.feed)

    def step(self, what: StepOptimizer) -> None:
        """Make the next version: of nothing, of the owners' parts, or of the mean gradient."""
        if what.skip:
            self._jobs.compute(self._computations.skip(what), self._made)
            return
        if what.adopt:
            self._parts.drop(what.step, what.round)
            state = self._updates.take(what.step, what.round)
            self._jobs.compute(self._computations.adopt(what, state), self._made)
            return
        mean = self._parts.take_reduced(what.step, what.round)
        update = self._computations.step(what, mean.values)
        self._jobs.compute(update, partial(self._stepped, mean))

    def _mean(self, what: SumPart | CombineParts) -> Mean:
        return self._parts.mean(what.step, what.round, what.parts)

    def _stepped(self, mean: Mean, outcome: tuple[Stepped, Copied | None]) -> None:
        self._parts.give_back(mean)
        self._made(outcome)
