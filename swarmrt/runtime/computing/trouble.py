"""The meaning of a computation's error: that these tensors cannot be computed, or that this machine
is in trouble, whatever it computes."""

from __future__ import annotations

import torch

MOST_SAID = 200  # characters of an error's text


def is_own_trouble(error: BaseException, device: torch.device) -> bool:
    """Return whether the process cannot go on: it is out of memory, or its CUDA context is dead, in
    which every later call fails too."""
    return is_out_of_memory(error) or (device.type == "cuda" and _is_dead(device))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether this machine lacks memory, which is no fault of what was sent: all of it is of
    one size."""
    is_one = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_one or "DefaultCPUAllocator" in str(error)


def _is_dead(device: torch.device) -> bool:
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def said_by(error: BaseException) -> str:
    """Return an error's kind and its first line, for people."""
    first_line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first_line}"[:MOST_SAID]
