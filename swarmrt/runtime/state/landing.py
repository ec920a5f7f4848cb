"""The place where a file that is fetched comes to lie: in memory, or on the disk.

What is only passed on lies on the disk: it takes no more memory than the chunks that are on their
way, however large it is.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from swarmrt.runtime.checkpoints.disk import Disk
from swarmrt.runtime.process.worker import Outcome
from swarmrt.wire.tensors import new_buffer

Written = Callable[[OSError | None], None]


class Landing(Protocol):
    """The place of one file, whose pieces come in any order."""

    def write(self, offset: int, data: memoryview, written: Written) -> None:
        """Write a piece and call `written` on the event loop: with what went wrong, if anything."""

    def data(self) -> memoryview:
        """Return the whole file. Raises OSError."""


class InMemory:
    """A landing in memory that is taken as it is written."""

    def __init__(self, size_bytes: int) -> None:
        self._buffer = new_buffer(size_bytes)

    def write(self, offset: int, data: memoryview, written: Written) -> None:
        self._buffer[offset : offset + len(data)] = data
        written(None)

    def data(self) -> memoryview:
        return self._buffer


class OnDisk:
    """A landing in a file. Each piece opens it anew, so that nobody has to wait for them before it
    is removed."""

    def __init__(self, path: Path, size_bytes: int, *, disk: Disk) -> None:
        """Take the file's room on the disk. Raises OSError when there is not enough."""
        self._path, self._disk = path, disk
        allocate(path, size_bytes)

    def write(self, offset: int, data: memoryview, written: Written) -> None:
        def write() -> None:
            with self._path.open("r+b", buffering=0) as file:
                file.seek(offset)
                left = data
                while left:
                    left = left[file.write(left) :]

        def done(outcome: Outcome) -> None:
            error = outcome.error
            if error is not None and not isinstance(error, OSError):
                raise error
            written(error)

        self._disk.run(write, done, len(data))

    def data(self) -> memoryview:
        return mapped(self._path)


def allocate(path: Path, size_bytes: int) -> None:
    """Make a file, or make it anew, with its room on the disk. Raises OSError when there is not
    enough."""
    with path.open("wb") as file:
        if size_bytes and hasattr(os, "posix_fallocate"):  # macOS has none
            os.posix_fallocate(file.fileno(), 0, size_bytes)
        else:
            file.truncate(size_bytes)


def writable(path: Path, size_bytes: int) -> memoryview:
    """Return a new file's bytes, to be written in place. Raises OSError."""
    allocate(path, size_bytes)
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), size_bytes))


def mapped(path: Path) -> memoryview:
    """Return a file's bytes, which are read when they are looked at. Raises OSError."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
