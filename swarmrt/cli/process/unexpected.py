"""An error that nobody foresaw: its traceback for whoever mends it, its cause for whoever reads the
last line."""

from __future__ import annotations

import sys
import traceback

from swarmrt.foreign import for_terminal
from swarmrt.runtime.peer.causes import cause_of


def show_unexpected(error: Exception) -> None:
    """Print the traceback, and what it comes down to, on standard error."""
    print(for_terminal("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    print(f"swarmrt: {cause_of(error)}", file=sys.stderr)
