"""Weights for use elsewhere: one state dict, safetensors, a Hugging Face Llama folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import safetensors.torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.errors import ModelError, UsageError
from swarmrt.model.layers import NORM_EPS, ROTARY_BASE, hidden_width


def join_states(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The whole model's state dict from the stages' states, optimizer left out."""
    return {
        name.removeprefix("model."): tensor
        for state in states
        for name, tensor in state.items()
        if name.startswith("model.")
    }


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Whole or not at all. Raises UsageError when it cannot be written."""
    data = safetensors.torch.save({n: t.contiguous() for n, t in tensors.items()}, {"format": "pt"})
    write_whole(path, data)


def write_whole(path: Path, data: bytes) -> None:
    """Write under a temporary name, fsync, rename. Raises UsageError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None


def write_hf_llama(config: RunConfig, tensors: dict[str, Tensor], folder: Path) -> None:
    """A folder that transformers' LlamaForCausalLM loads to the same logits.

    The decoder's parameters already have its names and layout. Raises ModelError for a user's own
    model, UsageError when the folder cannot be written.
    """
    model = config.model
    if model.kind != "decoder":
        raise ModelError(f"--hf writes the built-in decoder only, this run has {model.kind!r}")
    description = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.vocab,
        "hidden_size": model.width,
        "intermediate_size": hidden_width(model.width),
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.width // model.heads,
        "hidden_act": "silu",
        "max_position_embeddings": model.sequence,
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROTARY_BASE,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "torch_dtype": model.dtype,
    }
    renamed = {name.replace("norm.", "model.norm.", 1) if name.startswith("norm.") else name: t
               for name, t in tensors.items()}  # fmt: skip
    write_safetensors(folder / "model.safetensors", renamed)
    write_whole(folder / "config.json", json.dumps(description, indent=2).encode())
