"""A check's process and all that comes of it: started with a limit, ended without a remainder.

A swarm's processes have sessions of their own, and outlive the check that started them by a while.
On Linux their orphans are made children of this process, where they can be found.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
LEAVE_S = 5.0  # for a check to leave by itself once it is asked to
GONE_S = 10.0  # for the kernel to end what was killed
POLL_S = 0.05


def adopt_orphans() -> None:
    """Have processes that lose their parent become children of this one. For Linux alone."""
    if os.path.exists("/proc/self/stat"):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run_limited(
    command: Sequence[str], environment: Mapping[str, str], output: Path, limit_s: float
) -> int | None:
    """The exit code, or None for a process that was ended at its limit. Nothing of it is left."""
    with output.open("ab") as file:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        return process.wait(max(0.0, limit_s))
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
        return None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        end_what_is_left()


def end_what_is_left() -> None:
    """Kill every process that has come of this one, and wait until they are gone."""
    deadline = time.monotonic() + GONE_S
    while left := descendants(os.getpid()):
        for pid in left:
            _kill(pid)
        _reap()
        if time.monotonic() > deadline:
            print(f"check_gpu: these processes do not end: {left}", flush=True)
            return
        time.sleep(POLL_S)


def descendants(pid: int) -> list[int]:
    """The processes that have come of one, itself left out; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in the middle may hold anything but is in brackets.
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
        children.setdefault(parent, []).append(int(entry.parent.name))
    found, open_ones = [], [pid]
    while open_ones:
        more = children.get(open_ones.pop(), [])
        found += more
        open_ones += more
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended by itself


def _reap() -> None:
    """Let go of children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            continue
    except ChildProcessError:
        return  # there is none
