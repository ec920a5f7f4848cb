"""The process from which those of a swarm on this machine are forked: `swarmrt fork-server`, which
only launchers say."""

from __future__ import annotations

import importlib
import socket
import sys

from swarmrt.runtime.launching.forking import serve

LIBRARIES = (
    "swarmrt.cli.app",
    "swarmrt.cli.process.running",
    "swarmrt.lab.bench.emulation",
    "swarmrt.observe.live.table",
    "swarmrt.observe.live.plain",
    "swarmrt.runtime.peer.serving",
    "swarmrt.runtime.trainer.trainer",
    "uvloop",
)
"""What `bootstrap`, `serve` and `train` import. One that is missing here costs time, no more."""


def fork_processes(descriptor: int) -> None:
    """Return in the processes that are forked, whose command line is in `sys.argv` then."""
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.argv[1:] = serve(socket.socket(fileno=descriptor))
