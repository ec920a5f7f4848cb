"""The cause of a process's end, for people."""

from __future__ import annotations

import signal

from swarmrt.foreign import for_terminal

SAID = "swarmrt: "  # how a command's word about its own end begins


def cause_of(exit_code: int, said: str) -> str:
    """Return by which signal it was ended, or what it has said of it: its last words, at least."""
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = ", as systems do with whoever takes too much memory" if name == "SIGKILL" else ""
        return f"it was killed by {name}{hint}"
    lines = said.strip().splitlines()
    causes = [line for line in lines if line.startswith(SAID)]
    last = (causes or lines or ["it said nothing"])[-1]
    return for_terminal(last).removeprefix(SAID)
