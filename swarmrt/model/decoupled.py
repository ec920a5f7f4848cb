"""The weights of a stage whose replicas commit together, each with a momentum of its own (DeMo:
Peng, Quesnelle and Kingma 2024, arXiv 2411.19870).

A replica adds its gradients to its momentum, and gives a round the largest frequencies of that.
What it has given leaves the momentum, but not before the version is made: a round that is void
changes nothing. The version is a step by the sign of what all have given.

That step rounds once an operation, so replicas on unlike hardware come to equal bits. A momentum is
in no version: a newcomer begins with none.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.kernels.spectrum import Spectrum
from swarmrt.model.committed import Committed
from swarmrt.model.optimizer import learning_rate
from swarmrt.model.weights import Copy


def spectrum_of(config: RunConfig) -> Spectrum:
    """Return what replicas send each other with decoupled momentum."""
    averaging, dtype = config.averaging, getattr(torch, config.model.dtype)
    exact = torch.promote_types(dtype, torch.float32)
    return Spectrum(averaging.chunk, averaging.top_k, averaging.precision, exact)


class Decoupled(Committed):
    def __init__(self, config: RunConfig, build: Callable[[], Copy]) -> None:
        super().__init__(config, build)
        self._spectrum = spectrum_of(config)
        self._numel = self.newest.flat.num_parameters
        size = (self._spectrum.rows(self._numel), config.averaging.chunk)
        self._momentum = torch.zeros(size, dtype=self.masters.dtype, device=self.masters.device)
        self._next = torch.zeros_like(self._momentum)  # once what was given counts
        self._given: Tensor | None = None

    def contribute(self, step: int) -> None:
        super().contribute(step)
        self._next.copy_(self._momentum).mul_(self._config.averaging.beta)
        self._next.view(-1)[: self._numel] += self.gradients(step)
        self._given = self._spectrum.take_peaks(self._next).cpu()

    def contribution(self, step: int) -> Tensor:
        """Return the peaks of each chunk, one row a chunk."""
        assert self._given is not None, "contribute comes first"
        return self._given

    def step(self, reduced: Tensor, clip_scale: float, given: Tensor | None = None) -> None:
        rate = learning_rate(self._config, self.version)
        with torch.no_grad():
            self.updated.step_by_signs(reduced.to(self.masters.device), rate)
        if given is not None and given is self._given:
            self._momentum, self._next = self._next, self._momentum
        self._given = None
        self._made()

    def restored(self, version: int) -> None:
        self._momentum.zero_()
        self._given = None
        super().restored(version)
