"""The place where a file that is fetched comes to lie: in memory, or on the disk.

What is only passed on lies on the disk: it takes no more memory than the chunks that are on their
way, however large it is.
"""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from swarmrt.wire.tensors import new_buffer

Written = Callable[[OSError | None], None]


class Landing(Protocol):
    """The place of one file, whose pieces come in any order."""

    def write(self, offset: int, data: memoryview, written: Written) -> None:
        """Write a piece and call `written` on the event loop: with what went wrong, if anything."""

    def data(self) -> memoryview:
        """Return the whole file."""


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
    """A landing in a file. Pieces are written on threads; each opens the file anew, so that nobody
    has to wait for them before it is removed."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Take the file's room on the disk. Raises OSError when there is not enough."""
        self._path = path
        with path.open("wb") as file:
            if size_bytes and hasattr(os, "posix_fallocate"):  # macOS has none
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            else:
                file.truncate(size_bytes)

    def write(self, offset: int, data: memoryview, written: Written) -> None:
        def write() -> None:
            with self._path.open("r+b", buffering=0) as file:
                file.seek(offset)
                left = data
                while left:
                    left = left[file.write(left) :]

        def done(writing: asyncio.Future[None]) -> None:
            if writing.cancelled():
                return
            error = writing.exception()
            if error is not None and not isinstance(error, OSError):
                raise error
            written(error)

        asyncio.get_running_loop().run_in_executor(None, write).add_done_callback(done)

    def data(self) -> memoryview:
        return mapped(self._path)

    def writable(self, size_bytes: int) -> memoryview:
        """Return the file's bytes, to be written in place. Raises OSError."""
        with self._path.open("r+b") as file:
            return memoryview(mmap.mmap(file.fileno(), size_bytes))


def mapped(path: Path) -> memoryview:
    """Return a file's bytes, which are read when they are looked at. Raises OSError."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
