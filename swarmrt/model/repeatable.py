"""Arithmetic on CUDA that comes out the same to the bit each time.

Some of CUDA's operations add in whatever order their threads come, attention's backward among them,
and cuBLAS may choose another algorithm with another workspace. No promise of a run rests on more
than reassociation, but a difference between two runs is then always a mistake of ours.
"""

from __future__ import annotations

import os

import torch
import torch.utils.deterministic

from swarmrt.config import RunConfig

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS reads it when a process first multiplies


def compute_repeatably(config: RunConfig, device: str) -> None:
    """Have this process compute repeatably from now on, if it can. Call it before anything else.

    The built-in decoder has no operation without such a way. A builder's model may have some, which
    would raise an error then: it is left as it is. A CPU is repeatable anyway.
    """
    if torch.device(device).type != "cuda" or config.model.kind != "decoder":
        return
    os.environ.setdefault(WORKSPACE, ":4096:8")  # a fixed one: cuBLAS, "Results reproducibility"
    torch.use_deterministic_algorithms(True)
    # It fills new memory, which is for finding mistakes, and takes time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
