"""Ctrl-C, SIGTERM and SIGHUP while there is nothing to drain yet, or nothing any more.

An exception that is raised in the middle of an import may not get through: a weak reference's
callback drops it, and Python itself makes a RuntimeError of what comes out of `__set_name__`. So
a process that is importing leaves without one: nothing of ours is open in there.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

from swarmrt.runtime.process.stopping import stop_signals

IMPORTS = "<frozen importlib"  # how the file names of the import system's own frames begin


def leave_quietly_on_signals() -> None:
    """Have signals end the process with exit code 0 until an event loop takes over.

    What is open is unwound, but for what an import has open.
    """
    for number in stop_signals():
        signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    if _is_importing(frame):
        os._exit(0)
    raise SystemExit(0)


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether this frame, or one that it was called from, is the import system's."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTS):
            return True
        frame = frame.f_back
    return False
