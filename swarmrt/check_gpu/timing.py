"""The time that the device takes to compute."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def median_s(device: str, work: Callable[[], object], rounds: int, warm_up: int = 3) -> float:
    """Return the median seconds of one call, over some rounds, after some that do not count."""
    for _ in range(warm_up):
        work()
    return statistics.median(seconds(device, work) for _ in range(rounds))


def seconds(device: str, work: Callable[[], object]) -> float:
    """Return the seconds of one call, until the device is done."""
    if device == "cpu":
        started = time.perf_counter()
        work()
        return time.perf_counter() - started
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    first.record()
    work()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3
