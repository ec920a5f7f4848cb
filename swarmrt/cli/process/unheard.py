"""Output whose reader goes away, as that of `swarmrt local … | head` does: the process goes on."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

GONE = (errno.EPIPE, errno.EIO)  # a pipe without a reader, a terminal that was closed
FULL = (errno.ENOSPC, errno.EDQUOT)


def go_on_unheard() -> None:
    """Have standard output and error say nothing, rather than fail, when nobody takes them."""
    sys.stdout = sys.stdout and _patient(sys.stdout)
    sys.stderr = sys.stderr and _patient(sys.stderr)


def _patient(stream: TextIO) -> TextIO:
    assert isinstance(stream, io.TextIOWrapper)
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Patient(stream.fileno(), "wb", closefd=False)),  # type: ignore[type-var]
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
    )


class _Patient(io.FileIO):
    """A file that drops what it cannot write, since nobody will ever read it."""

    def write(self, data: bytes) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in GONE:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
            elif error.errno not in FULL:
                raise
            return len(data)
