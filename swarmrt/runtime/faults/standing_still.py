"""Processes that stand still for a while, on purpose."""

from __future__ import annotations

import os
import signal
import subprocess


def stand_still(pid: int, seconds: float) -> None:
    """Stop a process, or the group of this number if it is negative, and have it woken by another
    one, whatever becomes of us."""
    subprocess.run(
        ["/bin/sh", "-c", f"(sleep {seconds:.3f}; kill -CONT {pid}) &"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=True,
    )
    os.kill(pid, signal.SIGSTOP)
