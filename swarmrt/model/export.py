"""Weights for use elsewhere: one state dict, safetensors, a Hugging Face Llama folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.errors import CheckpointError, ModelError, UsageError
from swarmrt.model.build import Slice, build_layers
from swarmrt.model.layers import NORM_EPS, ROTARY_BASE, feed_forward_width

HF_LLAMA_NAMES = {  # of what follows `blocks.{i}.`, or of the whole name
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "feed_forward_norm.weight": "post_attention_layernorm.weight",
    "feed_forward.gate.weight": "mlp.gate_proj.weight",
    "feed_forward.up.weight": "mlp.up_proj.weight",
    "feed_forward.down.weight": "mlp.down_proj.weight",
}


def join_states(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The whole model's state dict from the stages' states, optimizer left out.

    Raises CheckpointError when two stages hold the same tensor.
    """
    joined: dict[str, Tensor] = {}
    for stage, state in enumerate(states):
        for full_name, tensor in state.items():
            if full_name.startswith("model."):
                name = full_name.removeprefix("model.")
                if name in joined:
                    raise CheckpointError(f"stage {stage} and one before it both hold {name}")
                joined[name] = tensor
    return joined


def model_names(config: RunConfig) -> list[str]:
    """Names of the exported state dict, layer by layer; one layer is in memory at a time.

    Raises ModelError when the model cannot be built.
    """
    model = build_layers(config)
    return [
        name
        for index in range(len(model.layers))
        for name in Slice(model, index, index + 1).tensors()
    ]


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a file whole or not at all, without a second copy of the tensors in memory. Raises
    UsageError when it cannot be written."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as temporary:
        safetensors.torch.save_file(contiguous, temporary, {"format": "pt"})


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises UsageError."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name to write under, then fsync, rename. Raises UsageError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        try:
            mode = temporary.stat().st_mode
            yield temporary
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            temporary.chmod(mode)  # safetensors replaces it by a file that its user alone can read
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    except SafetensorError as error:
        raise UsageError(f"{path}: cannot be written: {error}") from None


def write_hf_llama(config: RunConfig, tensors: dict[str, Tensor], folder: Path) -> None:
    """A folder that transformers' LlamaForCausalLM loads to the same logits.

    The values go unchanged, under its names. Raises ModelError for a user's own model,
    UsageError when the folder cannot be written.
    """
    model = config.model
    if model.kind != "decoder":
        raise ModelError(f"--hf writes the built-in decoder only, this run has {model.kind!r}")
    description = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.vocab,
        "hidden_size": model.width,
        "intermediate_size": feed_forward_width(model.width),
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
    renamed = {hf_llama_name(name): tensor for name, tensor in tensors.items()}
    write_safetensors(folder / "model.safetensors", renamed)
    write_whole(folder / "config.json", json.dumps(description, indent=2).encode())


def hf_llama_name(name: str) -> str:
    """Return a parameter's name in Hugging Face's Llama: `blocks.3.attention.query.weight` is
    `model.layers.3.self_attn.q_proj.weight` there."""
    if not name.startswith("blocks."):
        return HF_LLAMA_NAMES[name]
    _, index, inner = name.split(".", 2)
    return f"model.layers.{index}.{HF_LLAMA_NAMES[inner]}"
