"""The cause of a process's end, in one line for people: its owner's, and those of the run."""

from __future__ import annotations

import traceback
from pathlib import Path

from swarmrt.errors import SwarmError
from swarmrt.foreign import printable

MAX_CAUSE = 600  # characters


def cause_of(error: BaseException) -> str:
    """Return what was raised first of all; where as well, if nobody foresaw it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    said = printable(str(error), MAX_CAUSE)
    if isinstance(error, SwarmError):
        return said
    frames = traceback.extract_tb(error.__traceback__)
    where = f", in {frames[-1].name} ({_place(frames[-1])})" if frames else ""
    return f"unexpected {type(error).__name__}{': ' if said else ''}{said}{where}"


def _place(frame: traceback.FrameSummary) -> str:
    return f"{Path(frame.filename).name}:{frame.lineno}"
