"""The anchor becomes the mean of the replicas (local SGD: Stich 2018, "Local SGD converges fast and
communicates little"; SWARM, Ryabinin et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from swarmrt.averaging.strategy import Slots, Strategy


class Plain(Strategy):
    def advance(self, anchor: Tensor, move: Tensor, slots: Slots) -> None:
        """Make the mean move."""
        anchor.add_(move)
