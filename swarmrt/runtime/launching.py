"""The processes that swarmrt starts by itself, for swarms on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from swarmrt.config import RunConfig

COMMAND = (sys.executable, "-P", "-m", "swarmrt")
"""`-P`: no file of the working folder passes for a module."""


def environment() -> dict[str, str]:
    """Return this process's environment without settings: those of the run are in its
    configuration."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SWARMRT_")}


def consent(config: RunConfig) -> list[str]:
    """Return what `swarmrt serve` is told where the run and the machine have the same owner."""
    from swarmrt.model.builders import BUILT_IN  # loads torch

    arguments = ["--max-memory", "none"]
    if config.model.kind != BUILT_IN:
        arguments += ["--allow-model", config.model.kind, "--model-path", str(Path.cwd())]
    return arguments
