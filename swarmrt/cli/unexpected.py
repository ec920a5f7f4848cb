"""An error that nobody foresaw: its traceback for whoever mends it, its cause for whoever reads the
last line."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from swarmrt.foreign import for_terminal, printable

MAX_CAUSE = 600  # characters


def show_unexpected(error: Exception) -> None:
    """Print the traceback, and what it comes down to, on standard error."""
    print(for_terminal("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    print(f"swarmrt: {cause_of(error)}", file=sys.stderr)


def cause_of(error: BaseException) -> str:
    """Return in one line what was raised first of all, and where."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f", in {frames[-1].name} ({_place(frames[-1])})" if frames else ""
    said = printable(str(error), MAX_CAUSE)
    return f"unexpected {type(error).__name__}{': ' if said else ''}{said}{where}"


def _place(frame: traceback.FrameSummary) -> str:
    return f"{Path(frame.filename).name}:{frame.lineno}"
