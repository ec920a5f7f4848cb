"""Output whose reader goes away, as that of `swarmrt local … | head` does: the process goes on."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

GONE = (errno.EPIPE, errno.ECONNRESET, errno.EIO)  # no reader any more; a closed terminal
FULL = (errno.ENOSPC, errno.EDQUOT)


def go_on_unheard() -> None:
    """Have standard output and error say nothing, rather than fail, when nobody takes them."""
    _open_closed()
    sys.stdout = _patient(sys.stdout or open(1, "w", closefd=False))
    sys.stderr = _patient(sys.stderr or open(2, "w", closefd=False))


def _open_closed() -> None:
    """Open standard streams that were closed when this process began: the next files and sockets
    would be taken for them."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


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
