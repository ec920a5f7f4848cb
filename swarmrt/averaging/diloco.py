"""The mean move is the gradient of an outer optimizer, SGD with Nesterov momentum (DiLoCo:
Douillard et al. 2023). With several ranges, one of them takes its turn in each round (Streaming
DiLoCo: Douillard et al. 2025)."""

from __future__ import annotations

from torch import Tensor

from swarmrt.averaging.strategy import Slots, Strategy, one_of
from swarmrt.config import RunConfig

MOMENTUM = "outer_momentum"


class Diloco(Strategy):
    def __init__(self, config: RunConfig, num_parameters: int) -> None:
        super().__init__(config, num_parameters)
        averaging = config.averaging
        self._rate, self._momentum = averaging.outer_lr, averaging.outer_momentum
        self._ranges = min(averaging.ranges, max(1, num_parameters))
        self.slots = (MOMENTUM,) if self._momentum else ()

    @property
    def turns(self) -> int:
        return self._ranges

    def range_of(self, version: int) -> slice:
        """Return the range whose turn it is."""
        return one_of(self._ranges, version, self.num_parameters)

    def advance(self, anchor: Tensor, move: Tensor, slots: Slots) -> None:
        """Step by the move, and by the momentum that it has then."""
        if not self._momentum:
            anchor.add_(move * self._rate)
            return
        momentum = slots[MOMENTUM]
        momentum.mul_(self._momentum).add_(move)
        anchor.add_((momentum * self._momentum).add_(move).mul_(self._rate))
