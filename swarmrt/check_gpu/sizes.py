"""The model of the figures: as large as the card allows, and tiny where there is none."""

from __future__ import annotations

from typing import NamedTuple

import torch

from swarmrt.check_gpu.job import Job
from swarmrt.check_gpu.models import Sections, decoder
from swarmrt.config import RunConfig

LARGE_CARD_BYTES = 40e9
IN_FLIGHT = 3  # microbatches: those of a peer in a pipeline of two stages


class Size(NamedTuple):
    layers: int  # in two stages
    width: int
    sequence: int
    microbatch: int
    heads: int


LARGE = Size(16, 2048, 1024, 4, 16)  # 0.7 billion parameters
MIDDLE = Size(16, 1280, 1024, 2, 10)  # 0.3 billion, for cards of 16 GB or more
TINY = Size(2, 64, 32, 2, 2)


def size_for(job: Job) -> Size:
    if not job.is_gpu:
        return TINY
    memory_bytes = torch.cuda.get_device_properties(0).total_memory
    return LARGE if memory_bytes >= LARGE_CARD_BYTES else MIDDLE


def config_for(job: Job) -> RunConfig:
    """Matrix products and what goes over the wire in bfloat16, weights in float32."""
    size = size_for(job)
    sections: Sections = {
        "run": {"name": "check-gpu-figures"},
        "model": {"heads": size.heads, "kv_heads": size.heads},
        "batch": {"microbatches": 32 if job.is_gpu else 4},
        "precision": {"compute": "bfloat16", "activations": "bfloat16"},
    }
    return decoder(size.layers, size.width, size.sequence, size.microbatch, sections)


def flops_per_token(config: RunConfig, matrices: int) -> float:
    """Return the operations of forward and backward of a stage whose matrices have so many
    elements, the embedding left out: 6 each (Kaplan et al. 2020, section 2.1), and what attention
    takes, of which a causal mask leaves half (Chowdhery et al. 2022, appendix B)."""
    model = config.model
    stage_layers = model.layers / config.num_stages
    return 6.0 * matrices + 6.0 * stage_layers * model.sequence * model.width
