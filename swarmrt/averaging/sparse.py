"""Plain averaging of a few parameters in each round (SPARTA: Baioumy et al. 2025, here of slices
that take turns, as all come round), or of none before the last one (lo-fi: Wortsman et al.
2022)."""

from __future__ import annotations

from swarmrt.averaging.plain import Plain
from swarmrt.averaging.strategy import one_of
from swarmrt.config import RunConfig


class Sparta(Plain):
    def __init__(self, config: RunConfig, num_parameters: int) -> None:
        super().__init__(config, num_parameters)
        self._ranges = min(round(1 / config.averaging.share), max(1, num_parameters))

    @property
    def turns(self) -> int:
        return self._ranges

    def range_of(self, version: int) -> slice:
        """Return the slice whose turn it is."""
        return one_of(self._ranges, version, self.num_parameters)


class Lofi(Plain):
    @property
    def turns(self) -> int:
        return self.last_round + 1

    def range_of(self, version: int) -> slice:
        """Return no parameters: replicas go on alone until the last round."""
        return slice(0, 0)
