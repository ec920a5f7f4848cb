"""The vitals of a process: `vitals.jsonl`, one line every few seconds, beside its event log.

The event loop's lag is how much later than asked a timer comes. While torch, or anything else,
holds up the loop, no message is read and no deadline is kept. What others wanted and were refused
is counted here, by kind, since the start: nobody can fill a log with it.
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


async def watch_vitals(path: Path, refused: Mapping[str, int]) -> None:
    """Write a line again and again: the lag since the last one, memory, and what was refused so
    far. Never returns."""
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
        "refused": {kind: number for kind, number in refused.items() if number},
    }
    writer.append(json.dumps(line).encode() + b"\n")


def resident_bytes() -> int | None:
    """Return the resident memory of this process; None where the system does not tell."""
    if not STATM.exists():
        return None
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
