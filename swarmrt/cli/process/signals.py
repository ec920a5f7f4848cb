"""Ctrl-C, SIGTERM and SIGHUP while there is nothing to drain yet, or nothing any more.

An exception that is raised in the middle of an import may not get through: a weak reference's
callback drops it, and Python itself makes a RuntimeError of what comes out of `__set_name__`. So
a process that is importing leaves without one: nothing of ours is open in there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from swarmrt.runtime.process.stopping import stop_signals

PASSED_ON = 2  # of what asks to stop: drain, and leave at once
IMPORTS = "<frozen importlib"  # how the file names of the import system's own frames begin


def leave_quietly_on_signals() -> None:
    """Have signals end the process with exit code 0 until an event loop takes over.

    What is open is unwound, but for what an import has open.
    """
    for number in stop_signals():
        signal.signal(number, _leave)


@contextmanager
def fail_on_signals(what: str) -> Iterator[None]:
    """Have signals end the process with exit code 1, and say `what` follows from that: for a
    command that is of no use before it is done."""

    def fail(number: int, frame: FrameType | None) -> None:
        text = f"swarmrt: stopped by {signal.Signals(number).name}: {what}"
        if _is_importing(frame):
            print(text, file=sys.stderr, flush=True)
            os._exit(1)
        raise SystemExit(text)

    for number in stop_signals():
        signal.signal(number, fail)
    try:
        yield
    finally:
        leave_quietly_on_signals()


class Stops:
    """A count of what asks this process to stop while it is entered. The third has it leave.

    A signal may find the process anywhere, in possession of a lock too: it is counted, and no more.
    """

    def __init__(self) -> None:
        self.asked = 0

    def __enter__(self) -> Self:
        for number in stop_signals():
            signal.signal(number, self._count)
        return self

    def __exit__(self, *error: object) -> None:
        leave_quietly_on_signals()

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1
        if self.asked > PASSED_ON:
            _leave(number, frame)


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
