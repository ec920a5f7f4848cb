"""A model of one's own that ends its process at a character, for swarms of real processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, VOCAB = 16, 256


class Deadly(nn.Embedding):
    """An embedding that does not stand what is not ASCII, once there is a file `armed`."""

    def __init__(self, folder: str, how: str) -> None:
        super().__init__(VOCAB, WIDTH)
        self._armed, self._how = Path(folder) / "armed", how

    def forward(self, tokens_BT: Tensor) -> Tensor:
        if not tokens_BT.is_meta and bool((tokens_BT > 127).any()) and self._armed.exists():
            if self._how == "exit":
                sys.exit("this character is too much")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(tokens_BT)


def build(
    folder: str, how: str
) -> tuple[list[Callable[[], nn.Module]], Callable[[Tensor, Tensor], Tensor]]:
    layers: list[Callable[[], nn.Module]] = [
        partial(Deadly, folder, how),
        partial(nn.Linear, WIDTH, VOCAB),
    ]
    return layers, loss


def loss(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    return F.cross_entropy(logits_BTV.mT, targets_BT, reduction="none")
