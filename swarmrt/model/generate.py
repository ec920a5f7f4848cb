"""Sampling from a trained model, in one process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.errors import CheckpointError, ModelError
from swarmrt.ids import MicrobatchId
from swarmrt.model.build import Slice, build_layers
from swarmrt.model.meta import shapes_of


def generate(
    config: RunConfig,
    tensors: dict[str, Tensor],
    prompt: Sequence[int],
    new_tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
) -> Iterator[int]:
    """Tokens after the prompt, one by one. The window is the run's sequence length.

    Raises ModelError when the model's output is not logits [B, T, vocab], CheckpointError when
    the tensors are of another model.
    """
    whole = load_whole(config, tensors)
    draws = torch.Generator().manual_seed(seed)
    tokens = list(prompt)
    for _ in range(new_tokens):
        with torch.no_grad():
            window_BT = torch.tensor([tokens[-config.model.sequence :]])
            logits_BTV = whole(window_BT, MicrobatchId(0, 0, held_out=True))
        if logits_BTV.ndim != 3:
            raise ModelError(f"cannot sample: the model's output has {logits_BTV.ndim} dimensions")
        tokens.append(choose_token(logits_BTV[0, -1].float(), temperature, top_k, draws))
        yield tokens[-1]


def load_whole(config: RunConfig, tensors: Mapping[str, Tensor]) -> Slice:
    """The whole model with these weights, for evaluation. Raises CheckpointError.

    Nothing is built before its size is known to be that of the weights.
    """
    wanted = shapes_of(config, lambda: _whole(config).tensors())
    for name in [*wanted, *tensors]:
        if name not in wanted or name not in tensors or tensors[name].shape != wanted[name].shape:
            raise CheckpointError(f"the weights are of another model: {name} does not fit")
    whole = _whole(config).eval()
    for name, live in whole.tensors().items():
        live.copy_(tensors[name])
    return whole


def _whole(config: RunConfig) -> Slice:
    model = build_layers(config)
    return Slice(model, 0, len(model.layers))


def choose_token(logits_V: Tensor, temperature: float, top_k: int, draws: torch.Generator) -> int:
    """Temperature 0 takes the likeliest; top_k 0 samples among all."""
    if temperature == 0:
        return int(logits_V.argmax())
    if top_k:
        least = logits_V.topk(min(top_k, logits_V.numel())).values[-1]
        logits_V = logits_V.masked_fill(logits_V < least, float("-inf"))
    chances = torch.softmax(logits_V / temperature, -1)
    return int(torch.multinomial(chances, 1, generator=draws))
