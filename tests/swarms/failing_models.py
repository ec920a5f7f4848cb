"""A model of one's own with a layer that raises errors, for swarms of real processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, VOCAB = 16, 256


class Fuse:
    """Blows as often as it is told to, in whatever processes."""

    def __init__(self, folder: str, what: str, times: int) -> None:
        self._folder, self._what, self._times = Path(folder), what, times

    def burn(self) -> None:
        for number in range(self._times):
            try:
                marker = self._folder / f"{self._what}-{number}"
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            raise RuntimeError(f"the {self._what} cannot take it\nwhatever it is")


class BurnsInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, fuse: Fuse) -> Tensor:
        ctx.fuse = fuse
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.fuse.burn()
        return grad, None


class Fails(nn.Module):
    """Between two linear layers: one of them has added its gradient when the other has not."""

    def __init__(self, folder: str, times: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self._fuses = [Fuse(folder, what, times) for what in ("forward", "backward")]

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta or not self.training:
            return x
        self._fuses[0].burn()
        between: Tensor = BurnsInBackward.apply(self.first(x), self._fuses[1])  # type: ignore[no-untyped-call]
        return x + F.silu(self.second(between))


def loss(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    return F.cross_entropy(logits_BTV.mT, targets_BT, reduction="none")


def build(
    folder: str, times: int
) -> tuple[list[Callable[[], nn.Module]], Callable[[Tensor, Tensor], Tensor]]:
    layers: list[Callable[[], nn.Module]] = [
        partial(nn.Embedding, VOCAB, WIDTH),
        partial(Fails, folder, times),
        partial(nn.Linear, WIDTH, VOCAB),
    ]
    return layers, loss
