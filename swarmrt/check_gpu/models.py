"""The models that are computed here, as configurations."""

from __future__ import annotations

from typing import Any

import torch

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.ids import MicrobatchId

Sections = dict[str, dict[str, Any]]


def decoder(
    layers: int, width: int, sequence: int, microbatch: int, sections: Sections | None = None
) -> RunConfig:
    """A decoder in two equal stages, for tokens of one byte. `sections` go over all else."""
    values: Sections = {
        "run": {"name": "check-gpu", "steps": 1000},
        "model": {"layers": layers, "width": width, "sequence": sequence},
        "stages": {"layers": [layers // 2, layers - layers // 2]},
        "batch": {"microbatch": microbatch, "microbatches": 4},
        "optimizer": {"warmup_steps": 0, "schedule": "constant", "lr": 1e-3},
        "evaluation": {"every_steps": 0},
        "checkpoint": {"every_steps": 0},
    }
    heads = max(2, width // 64)
    values["model"] |= {"heads": heads, "kv_heads": heads // 2}
    for section, changes in (sections or {}).items():
        values.setdefault(section, {}).update(changes)
    return parse_config(values, "check_gpu")


def batch(config: RunConfig, number: int) -> tuple[MicrobatchId, torch.Tensor, torch.Tensor]:
    """A microbatch of step 0: its id, tokens and targets, drawn from its number."""
    shape = (config.batch.microbatch, config.model.sequence + 1)
    generator = torch.Generator().manual_seed(number)
    tokens = torch.randint(config.model.vocab, shape, generator=generator)
    return MicrobatchId(0, number), tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
