"""The option `--device`, checked at the edge."""

from __future__ import annotations

import typer

from swarmrt.errors import UsageError

DEVICE = typer.Option("cpu", "--device", help='A torch device: "cpu", "cuda", "cuda:1", "mps".')


def check_device(device: str) -> None:
    """Raise UsageError when torch cannot use it here."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {device}: not usable here: {reason}") from None
