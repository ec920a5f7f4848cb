"""The memory that a peer's process takes at its peak, predicted: what computes, and what is kept.

A process that serves nothing has libraries in it. How much that is depends on their releases, so it
is measured, in a process that loads what a peer loads.
"""

from __future__ import annotations

import math
import subprocess
import sys

from swarmrt.config import RunConfig
from swarmrt.errors import RunError
from swarmrt.model.sizing import MOST_SNAPSHOTS, Footprint
from swarmrt.runtime.state.offering import LEASE_S

PEER = """
import swarmrt.cli.swarm.serve, swarmrt.runtime.peer.peer
from swarmrt.runtime.process.vitals import resident_bytes
print(resident_bytes())
"""
LOADING_S = 120.0  # even on a busy machine


def process_bytes() -> int:
    """Return what a peer's process has before it serves anything. Raises RunError where the system
    does not tell."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", PEER], capture_output=True, text=True, timeout=LOADING_S
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"a process did not load its libraries in {LOADING_S:.0f} s") from None
    if done.returncode or not done.stdout.strip().isdecimal():
        raise RunError("this system does not tell how much memory a process has")
    return int(done.stdout)


def snapshots_kept(config: RunConfig, step_s: float) -> int:
    """Return how many states a peer has for others where nobody joins: one for each checkpoint of
    so long ago as it is kept, and the one that is being made."""
    between_s = config.checkpoint.every_steps * step_s
    if not between_s:
        return 0
    return min(MOST_SNAPSHOTS, 1 + math.floor(LEASE_S / between_s))


def peak_bytes(needed: Footprint, config: RunConfig, step_s: float, process: int) -> int:
    """Return the most resident memory of a peer that trains this stage on the CPU, in steps of so
    long, where a process that serves nothing has so much."""
    return process + needed.peak_bytes(snapshots_kept(config, step_s))
