"""Asking the peers of this machine: what `swarmrt pause`, `resume` and `stop` do."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from swarmrt.errors import RunError, UsageError
from swarmrt.runtime.owner.folder import (
    connected,
    remove_if_empty,
    sockets_folder,
    sweep,
)
from swarmrt.runtime.owner.words import MOST_BYTES, Act, Asked, Told, line_of, word_of

STATUS_S = 10.0  # for a process to say how it is
ACT_S = 120.0  # for what it computes to end


def ask(act: Act, which: Sequence[str] = ()) -> list[Told]:
    """Have the processes act that serve here, or those of these numbers and runs; return what they
    say. Raises UsageError when there is none, or one is named that is not there."""
    folder = sockets_folder()
    paths = sweep(folder)
    remove_if_empty(folder)
    with ThreadPoolExecutor(max(1, len(paths))) as threads:
        found = list(zip(paths, threads.map(_status, paths), strict=True))
        chosen = [path for path, told in found if not which or _is_one(told, which)]
        _check_all_are_there(which, [told for _, told in found])
        return list(threads.map(lambda path: _ask(path, act, ACT_S), chosen))


def _status(path: Path) -> Told:
    return _ask(path, "status", STATUS_S)


def _is_one(told: Told, which: Sequence[str]) -> bool:
    return any(_is_named(told, name) for name in which)


def _is_named(told: Told, name: str) -> bool:
    return name in (str(told.pid), told.run, told.run.partition("@")[0])


def _check_all_are_there(which: Sequence[str], found: Sequence[Told]) -> None:
    """Raise UsageError where nobody is what was named."""
    known = ", ".join(f"{told.pid} (run {told.run or '?'})" for told in found)
    if not found:
        raise UsageError(
            "no peer of yours serves on this machine (or it is in a container, or of an earlier "
            "swarmrt); `swarmrt serve` starts one"
        )
    for name in which:
        if not any(_is_named(told, name) for told in found):
            raise UsageError(f"no peer of yours here is {name!r}; here are {known}")


def _ask(path: Path, act: Act, patience_s: float) -> Told:
    """Return what a process says; where it says nothing, that it has not done it."""
    try:
        connection = connected(path)
        if connection is None:
            return _failed(path, "it has just ended")
        with connection:
            connection.settimeout(patience_s)
            connection.sendall(line_of(Asked(act)))
            return word_of(_read_line(connection), Told)
    except TimeoutError:
        return _failed(path, f"it has not answered for {patience_s:.0f} s")
    except OSError as error:
        return _failed(path, f"it cannot be asked: {error.strerror or error}")
    except (UsageError, RunError) as error:
        return _failed(path, f"{error}; `kill {path.stem}` stops it")


def _failed(path: Path, error: str) -> Told:
    return Told(int(path.stem), "", (), "serving", error=error)


def _read_line(connection: socket.socket) -> bytes:
    """Return the first line that comes. Raises RunError when none does."""
    line = b""
    while not line.endswith(b"\n"):
        data = connection.recv(MOST_BYTES)
        line += data
        if not data or len(line) > MOST_BYTES:
            raise RunError("it has given no answer")
    return line
