"""Models whose code computes on an accelerator alone: it calls `.cuda()`, or a kernel in Triton.

They are found out by what they say on a CPU, and then tried on an accelerator, if there is one.
"""

from __future__ import annotations

import torch

from swarmrt.errors import ModelError

WORDS = ("cuda", "triton", "nvidia", "rocm", "active driver", "'cpu' backend")
"""What errors are about whose computation wants another device than a CPU."""


class NeedsAccelerator(ModelError):
    """The user's code cannot compute on a CPU."""


def error_of(error: Exception, words: str) -> ModelError:
    """Return an error in these words for one of the user's code, which may want another device."""
    about = f"{type(error).__name__} {error}".lower()
    return (NeedsAccelerator if any(word in about for word in WORDS) else ModelError)(words)


def accelerator() -> str | None:
    """Return the accelerator that is here, as torch names it."""
    return "cuda" if torch.cuda.is_available() else None


def wait_for(device: torch.device) -> None:
    """Wait until what the device was given to do is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
