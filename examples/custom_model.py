"""A model of your own: a byte language model of gated causal convolutions.

A builder returns (layers, loss). Each layer takes one tensor and returns one; here they are
functions that build it, so that a peer builds only the layers of its own stage. The gating is
that of Dauphin et al., 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn


class GatedConvolution(nn.Module):
    """Each position sees itself and the `reach` - 1 before it; [B, T, C] to [B, T, C]."""

    def __init__(self, width: int, reach: int, dropout: float) -> None:
        super().__init__()
        self.reach = reach
        self.norm = nn.LayerNorm(width)
        self.convolution = nn.Conv1d(width, 2 * width, reach)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTC: Tensor) -> Tensor:
        x_BCT = F.pad(self.norm(x_BTC).transpose(1, 2), (self.reach - 1, 0))
        mixed_BCT = F.glu(self.convolution(x_BCT), dim=1)
        out_BTC: Tensor = x_BTC + self.dropout(mixed_BCT.transpose(1, 2))
        return out_BTC


def head(width: int, vocab: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocab))


def loss(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Of each target. A mean over all of them would do as well."""
    losses_BT: Tensor = F.cross_entropy(logits_BTV.mT, targets_BT, reduction="none")
    return losses_BT


def build(
    width: int = 96, depth: int = 4, reach: int = 8, dropout: float = 0.1, vocab: int = 256
) -> tuple[list[Callable[[], nn.Module]], Callable[[Tensor, Tensor], Tensor]]:
    """`depth` + 2 layers: the embedding, the convolutions, the head."""
    layers: list[Callable[[], nn.Module]] = [partial(nn.Embedding, vocab, width)]
    layers += [partial(GatedConvolution, width, reach, dropout) for _ in range(depth)]
    layers.append(partial(head, width, vocab))
    return layers, loss
