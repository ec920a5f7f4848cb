"""Ctrl-C and SIGTERM while there is nothing to drain yet, or nothing any more."""

from __future__ import annotations

import signal
from types import FrameType


def leave_quietly_on_signals() -> None:
    """Until an event loop takes over: leave with exit code 0, unwinding what is open."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
