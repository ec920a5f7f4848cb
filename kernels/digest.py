"""An exact fingerprint of a tensor's bytes."""

from __future__ import annotations

import hashlib

import torch

DIGEST_CHARACTERS = 32  # 128 bits: no two of a run's tensors will ever collide by chance


def digest(tensor: torch.Tensor) -> str:
    """32 hex characters that two tensors share exactly when their bytes are equal.

    `tensor` is contiguous, on the CPU, of any dtype; it is read in place, not copied. SHA-256
    reads 1.5 GB/s on one core of a CPU with SHA instructions (100 MB, EPYC; SHA-1 1.7, MD5 0.7,
    BLAKE2b 0.5). Raises ValueError for a tensor that is elsewhere or strided.
    """
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise ValueError("only a contiguous CPU tensor can be digested without a copy")
    flat = tensor.detach().reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()[:DIGEST_CHARACTERS]
