"""Sampling from a trained model, in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.errors import ModelError
from swarmrt.model.build import build_layer, model_spec


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

    Raises ModelError when the model's output is not logits [B, T, vocab].
    """
    modules = []
    for layer in model_spec(config).layers:
        module = build_layer(config, layer).eval()
        module.load_state_dict({n: tensors[layer.name + n] for n in module.state_dict()})
        modules.append(module)
    draws = torch.Generator().manual_seed(seed)
    tokens = list(prompt)
    for _ in range(new_tokens):
        with torch.no_grad():
            value = torch.tensor([tokens[-config.model.sequence :]])
            for module in modules:
                value = module(value)
        if value.ndim != 3:
            raise ModelError(f"cannot sample: the model's output has {value.ndim} dimensions")
        tokens.append(choose_token(value[0, -1].float(), temperature, top_k, draws))
        yield tokens[-1]


def choose_token(logits_V: Tensor, temperature: float, top_k: int, draws: torch.Generator) -> int:
    """Temperature 0 takes the likeliest; top_k 0 samples among all."""
    if temperature == 0:
        return int(logits_V.argmax())
    if top_k:
        least = logits_V.topk(min(top_k, logits_V.numel())).values[-1]
        logits_V = logits_V.masked_fill(logits_V < least, float("-inf"))
    chances = torch.softmax(logits_V / temperature, -1)
    return int(torch.multinomial(chances, 1, generator=draws))
