"""The process from which those of a swarm on this machine are forked: `swarmrt fork-server`, which
only launchers say."""

from __future__ import annotations

import importlib
import socket
import sys

from swarmrt.runtime.forking import serve

LIBRARIES = (
    "swarmrt.cli.app",
    "swarmrt.cli.running",
    "swarmrt.lab.emulation",
    "swarmrt.observe.live",
    "swarmrt.observe.plain",
    "swarmrt.runtime.serving",
    "swarmrt.runtime.trainer",
    "uvloop",
)
"""What `bootstrap`, `serve` and `train` import. One that is missing here costs time, no more."""


def fork_processes(descriptor: int) -> None:
    """Return in the processes that are forked, whose command line is in `sys.argv` then."""
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.argv[1:] = serve(socket.socket(fileno=descriptor))
