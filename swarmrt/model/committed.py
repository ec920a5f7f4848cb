"""The weights of a stage whose replicas commit together: a version is the one before and an update.

With a staleness of 1 a microbatch of step t runs on what is expected of version t when t - 1 is the
newest. There are two more copies of the layers for that, and the gradient of a step is added up
in the one that it ran on, so steps t and t + 1 may be under way at the same time. What is expected
after an update goes to the copy that is not needed any more (PipeDream-2BW, Narayanan et al. 2021,
section 3.1; decision 0010).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.ids import MicrobatchId
from swarmrt.model.build import Slice
from swarmrt.model.flat import Accumulators
from swarmrt.model.optimizer import learning_rate
from swarmrt.model.updating import Updated
from swarmrt.model.weights import Copy, Weights


class Committed(Weights):
    def __init__(self, config: RunConfig, build: Callable[[], Copy]) -> None:
        self.version, self.overlap = 0, config.optimizer.staleness
        self._config = config
        self.newest = build()
        self.updated = Updated(config, self.newest.flat)
        copies = [build() for _ in range(2)] if self.overlap else [self.newest]
        self._running = [(copy, Accumulators(copy.flat, copy.parameters)) for copy in copies]

    def _running_in(self, step: int) -> tuple[Copy, Accumulators]:
        """Return the copy that a step runs on, which updates the newest version or, with staleness,
        the one after, and its gradients."""
        return self._running[step % len(self._running)]

    # ------------------------------------------------------------------ a microbatch

    def copy_for(self, step: int) -> Copy:
        return self._running_in(step)[0]

    def receive(self, copy: Copy, step: int) -> Accumulators:
        return self._running_in(step)[1]

    def added(self, microbatch: MicrobatchId, step: int) -> None:
        """Do nothing: it waits for the commit."""

    def gradients(self, step: int) -> Tensor:
        return self._running_in(step)[1].sums

    # ------------------------------------------------------------------ versions

    def step(self, reduced: Tensor, clip_scale: float, given: Tensor | None = None) -> None:
        scratch = self.gradients(self.version)
        rate = learning_rate(self._config, self.version)
        self.updated.step(reduced, clip_scale, rate, scratch=scratch)
        self._made()

    def adopt(self, pieces: Iterable[tuple[slice, Tensor]]) -> None:
        with torch.no_grad():
            self.updated.adopt(pieces)
        self._made()

    def skip(self) -> None:
        self._made()

    def clear(self) -> None:
        for _, gradients in self._running:
            gradients.clear()

    def _made(self) -> None:
        """Count what has been made as the next version."""
        self.version += 1
        self._expect()

    def _expect(self) -> None:
        """Make the copies ready for the steps that run on this version."""
        (own, gradients), newest = self._running_in(self.version), self.newest.flat
        if not self.overlap:
            gradients.clear()
            return
        following, gradients = self._running_in(self.version + 1)
        with torch.no_grad():
            if self._config.optimizer.staleness_of(self.version) == 0:
                own.flat.values.copy_(newest.values)
            if self._config.optimizer.staleness_of(self.version + 1) == 1:
                self.updated.expect(self.version, following.flat.values)
        gradients.clear()

    # ------------------------------------------------------------------ its state

    @property
    def masters(self) -> Tensor:
        return self.updated.masters

    def state(self, version: int) -> dict[str, Tensor]:
        """Return the optimizer's, and with staleness `previous.<name>`, which the step that comes
        next to be applied runs on."""
        state = self.updated.state()
        if self.overlap:
            before = self.copy_for(version).flat
            state |= {f"previous.{name}": values for name, values in before.named(before.values)}
        return state

    def restored(self, version: int) -> None:
        self.version = version
        self.updated.restored()
        self.clear()
        self._expect()

    def all_layers(self) -> list[Slice]:
        others = [copy.layers for copy, _ in self._running if copy is not self.newest]
        return [self.newest.layers, *others]
