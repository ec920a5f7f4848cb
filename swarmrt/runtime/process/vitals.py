"""The vitals of a process: `vitals.jsonl`, one line every few seconds, beside its event log.

The event loop's lag is how much later than asked a timer comes. While torch, or anything else,
holds up the loop, no message is read and no deadline is kept. What others wanted and were refused
is counted here, by kind, since the start: nobody can fill a log with it. Seconds of the CPU, and
those in which threads waited for a core, tell a machine that is too busy from links that are slow.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from swarmrt.log_files import PART_BYTES, compress, turn_over
from swarmrt.log_writer import LogWriter

TICK_S = 0.05  # between two looks at the lag
VITALS = "vitals.jsonl"
LINE_S = 5.0  # between two lines
KEPT_BYTES = PART_BYTES  # of what is compressed: a year of lines
STATM = Path("/proc/self/statm")  # where there is one
STATUS = Path("/proc/self/status")  # the same
THREADS = Path("/proc/self/task")
PEAK = "VmHWM:"


async def watch_vitals(path: Path, refused: Mapping[str, int]) -> None:
    """Write a line again and again: the lag since the last one, memory, CPU, and what was refused
    so far. Never returns."""
    while True:
        with closing(LogWriter(path)) as writer:
            while writer.size_bytes < PART_BYTES:
                await _write_line(writer, refused)
        turn_over(path)
        await asyncio.to_thread(compress, path, KEPT_BYTES)


async def _write_line(writer: LogWriter, refused: Mapping[str, int]) -> None:
    loop = asyncio.get_running_loop()
    lags: list[float] = []
    end = loop.time() + LINE_S
    while (asked := loop.time() + TICK_S) < end:
        await asyncio.sleep(TICK_S)
        lags.append(max(0.0, loop.time() - asked))
    line = {
        "time": time.time(),
        "loop_lag_median_s": statistics.median(lags),
        "loop_lag_worst_s": max(lags),
        "resident_bytes": resident_bytes(),
        "peak_bytes": peak_bytes(),
        "cpu_s": time.process_time(),
        "waited_s": waited_s(),
        "cores": cores(),
        "refused": {kind: number for kind, number in refused.items() if number},
    }
    writer.append(json.dumps(line).encode() + b"\n")


def resident_bytes() -> int | None:
    """Return the resident memory of this process; None where the system does not tell."""
    if not STATM.exists():
        return None
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int | None:
    """Return the most resident memory that this process has had; None where nobody tells."""
    if not STATUS.exists():
        return None
    lines = STATUS.read_text().splitlines()
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(PEAK)), None)


def waited_s() -> float | None:
    """Return how long the threads of this process that are there now have been ready to run, and
    had no core; None where the system does not tell."""
    nanoseconds = [ns for thread in THREADS.glob("*/schedstat") if (ns := _waited_ns(thread))]
    return sum(nanoseconds) / 1e9 if nanoseconds else None


def _waited_ns(thread: Path) -> int | None:
    """Return how long a thread has waited; None for one that has ended just now."""
    try:
        return int(thread.read_text().split()[1])
    except (OSError, IndexError):
        return None


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
