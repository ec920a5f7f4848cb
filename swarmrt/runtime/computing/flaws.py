"""Gradients that are not finite, found where they are made: of which microbatch, by which peer.

Once one has been added to the others of a step it can only be told whose sum is spoiled. A sum over
a tensor is finite if all of its values are, or so large that they are of no use, and costs next to
nothing beside a backward: where 100 million parameters are added to, 0.4 % for microbatches of 512
tokens, and 3 % for those of 64. From CUDA it comes to the host with the frame.
"""

from __future__ import annotations

import torch

from swarmrt.runtime.computing.transfers import Transfers

GIVEN = "the gradient that it was given is not finite"
MADE = "its gradient is not finite"


class Flaws:
    """The sums of what a backward was given and has made, on their way to the host."""

    def __init__(
        self,
        transfers: Transfers,
        *,
        given: torch.Tensor | None = None,
        made: torch.Tensor | None = None,
        added: torch.Tensor | None = None,
    ) -> None:
        """Look at what was given by the next stage, is made for the one before, and is added up
        here. Called where it was computed."""
        self._reasons = [GIVEN if tensor is given else MADE for tensor in (given, made, added)
                         if tensor is not None]  # fmt: skip
        sums = [tensor.sum().float() for tensor in (given, made, added) if tensor is not None]
        self._sums = transfers.to_host(torch.stack(sums)) if sums else None

    def told(self) -> str:
        """Return what is wrong, empty for nothing. Blocks the thread until it is known."""
        if self._sums is None:
            return ""
        finite = torch.isfinite(self._sums.wait()).tolist()
        return next(
            (why for why, is_fine in zip(self._reasons, finite, strict=True) if not is_fine), ""
        )
