"""The memory of a device that torch holds for this process, used or not."""

from __future__ import annotations

import torch


def held_bytes(device: torch.device) -> int:
    """Return how much of the device this process's torch holds; what its driver takes for the
    process itself, some hundred megabytes of a CUDA device, is not in it."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return 0


def give_back(device: torch.device) -> None:
    """Give back what is not used."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
