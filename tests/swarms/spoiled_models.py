"""A model of one's own whose gradient is not finite for some of the data, whoever computes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, VOCAB = 16, 256


class SpoilsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


class Embeds(nn.Module):
    """An embedding that has no gradient for one in so many microbatches."""

    def __init__(self, one_in: int) -> None:
        super().__init__()
        self.table, self._one_in = nn.Embedding(VOCAB, WIDTH), one_in

    def forward(self, ids: Tensor) -> Tensor:
        is_bad = not ids.is_meta and int(ids.sum()) % self._one_in == 0
        embedded: Tensor = SpoilsBackward.apply(self.table(ids), float("nan") if is_bad else 1.0)  # type: ignore[no-untyped-call]
        return embedded


def loss(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    return F.cross_entropy(logits_BTV.mT, targets_BT, reduction="none")


def build(one_in: int) -> tuple[list[Callable[[], nn.Module]], Callable[[Tensor, Tensor], Tensor]]:
    return [partial(Embeds, one_in), partial(nn.Linear, WIDTH, VOCAB)], loss
