"""The cause of a process's end, in one line for people: its owner's, and those of the run."""

from __future__ import annotations

import traceback
from pathlib import Path

from swarmrt.errors import EndedByMicrobatch, SwarmError
from swarmrt.foreign import printable
from swarmrt.ids import MicrobatchId
from swarmrt.messages import NO_MICROBATCH

MAX_CAUSE = 600  # characters


def cause_of(error: BaseException) -> str:
    """Return what was raised first of all; where as well, if nobody foresaw it."""
    error = _first_of(error)
    said = printable(str(error), MAX_CAUSE)
    if isinstance(error, SwarmError):
        return said
    frames = traceback.extract_tb(error.__traceback__)
    where = f", in {frames[-1].name} ({_place(frames[-1])})" if frames else ""
    return f"unexpected {type(error).__name__}{': ' if said else ''}{said}{where}"


def microbatch_of(error: BaseException) -> MicrobatchId:
    """Return the microbatch whose computation was the cause, NO_MICROBATCH for none."""
    error = _first_of(error)
    return error.microbatch if isinstance(error, EndedByMicrobatch) else NO_MICROBATCH


def _first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _place(frame: traceback.FrameSummary) -> str:
    return f"{Path(frame.filename).name}:{frame.lineno}"
