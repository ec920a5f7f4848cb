"""The built-in decoder, in the style of Llama, one layer at a time.

Shapes: B sequences, T tokens, C width, H query heads, K key and value heads, D = C / H, V vocab.
Rotary positions: RoFormer (Su et al., 2021), halves rotated as Hugging Face's Llama does, so
that exported weights need no permutation. RMSNorm: Zhang and Sennrich, 2019. SwiGLU: Shazeer,
2020. Grouped queries: Ainslie et al., 2023.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swarmrt.config import Model

NORM_EPS = 1e-5  # Llama 2
ROTARY_BASE = 10000.0  # RoFormer, section 3.3
INIT_STD = 0.02  # GPT-2
FEED_FORWARD_MULTIPLE = 64  # of the hidden width: whole vectors on any hardware


def feed_forward_width(width: int) -> int:
    """Hidden width of SwiGLU: 8/3 of the width, as many weights as a plain 4x layer."""
    return -(-8 * width // (3 * FEED_FORWARD_MULTIPLE)) * FEED_FORWARD_MULTIPLE


def linear(inputs: int, outputs: int, std: float = INIT_STD) -> nn.Linear:
    """A matrix without a bias, drawn from a normal distribution."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=std)
    return layer


@lru_cache(maxsize=16)
def rotary_table(
    tokens: int, head_width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T, D], computed in at least float32."""
    exact = torch.promote_types(dtype, torch.float32)
    exponent = torch.arange(0, head_width, 2, dtype=exact, device=device) / head_width
    angle = torch.outer(torch.arange(tokens, dtype=exact, device=device), ROTARY_BASE**-exponent)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x_BHTD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Turn each pair (i, i + D/2) of a head by its position's angle."""
    first, second = x_BHTD.chunk(2, dim=-1)
    return x_BHTD * cos_TD + torch.cat((-second, first), dim=-1) * sin_TD


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, NORM_EPS)


class Attention(nn.Module):
    """Causal, with rotary positions; each key head serves H / K query heads."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.heads, self.kv_heads = model.heads, model.kv_heads
        self.sequence = model.sequence
        width, head_width = model.width, model.width // model.heads
        self.query = linear(width, model.heads * head_width)
        self.key = linear(width, model.kv_heads * head_width)
        self.value = linear(width, model.kv_heads * head_width)
        self.output = linear(width, width, residual_std(model.layers))

    def forward(self, x_BTC: Tensor) -> Tensor:
        tokens, head_width = x_BTC.shape[1], x_BTC.shape[2] // self.heads
        table = rotary_table(max(tokens, self.sequence), head_width, x_BTC.dtype, x_BTC.device)
        cos_TD, sin_TD = (part[:tokens] for part in table)
        query = rotate(split_heads(self.query(x_BTC), self.heads), cos_TD, sin_TD)
        key = rotate(split_heads(self.key(x_BTC), self.kv_heads), cos_TD, sin_TD)
        value = split_heads(self.value(x_BTC), self.kv_heads)
        if self.kv_heads < self.heads:
            shared = self.heads // self.kv_heads
            key, value = (part.repeat_interleave(shared, dim=1) for part in (key, value))
        mixed_BHTD = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        joined: Tensor = self.output(mixed_BHTD.transpose(1, 2).reshape(x_BTC.shape))
        return joined


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        hidden = feed_forward_width(model.width)
        self.gate = linear(model.width, hidden)
        self.up = linear(model.width, hidden)
        self.down = linear(hidden, model.width, residual_std(model.layers))

    def forward(self, x_BTC: Tensor) -> Tensor:
        out: Tensor = self.down(F.silu(self.gate(x_BTC)) * self.up(x_BTC))
        return out


class Block(nn.Module):
    """Attention and feed-forward, each on a normalised input, each a dropped-out residual."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.dropout = model.dropout
        self.attention_norm = RMSNorm(model.width)
        self.attention = Attention(model)
        self.feed_forward_norm = RMSNorm(model.width)
        self.feed_forward = FeedForward(model)

    def forward(self, x_BTC: Tensor) -> Tensor:
        x_BTC = x_BTC + self._drop(self.attention(self.attention_norm(x_BTC)))
        return x_BTC + self._drop(self.feed_forward(self.feed_forward_norm(x_BTC)))

    def _drop(self, branch: Tensor) -> Tensor:
        return F.dropout(branch, self.dropout, self.training)


class Embedding(nn.Module):
    """Token ids, int64 [B, T], to activations [B, T, C]."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(model.vocab, model.width))
        nn.init.normal_(self.weight, std=INIT_STD)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return F.embedding(tokens_BT, self.weight)


def head(model: Model) -> nn.Linear:
    """Logits [B, T, V] from normalised activations; not tied to the embedding."""
    return linear(model.width, model.vocab)


def residual_std(layers: int) -> float:
    """Keeps the residual stream's variance independent of depth (GPT-2, section 2.3)."""
    return INIT_STD / math.sqrt(2 * layers)


def split_heads(x_BTC: Tensor, heads: int) -> Tensor:
    """Turn [B, T, heads * D] to [B, heads, T, D]."""
    batch, tokens, _ = x_BTC.shape
    return x_BTC.view(batch, tokens, heads, -1).transpose(1, 2)


def token_losses(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Cross-entropy of each target in nats, [B * T], in at least float32."""
    logits = logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))
    return F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten(), reduction="none")
