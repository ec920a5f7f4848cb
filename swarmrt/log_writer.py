"""A log that goes on whatever its disk does.

While the disk is full, or fails, what is to be written waits in memory. When there is room again it
goes into the file, in its order, from the byte at which the last write ended: no line stays torn.
Memory is bounded. What does not fit is lost, and a line of its own says how much that was.
"""

from __future__ import annotations

import json
import logging
import os
import time
from functools import partial
from pathlib import Path

from swarmrt.log_files import PART_BYTES

log = logging.getLogger("swarmrt.log")

MOST_WAITING_BYTES = PART_BYTES
AGAIN = "is written again"
LOST = "lost_bytes"  # the only key of the line that stands for what was lost


class LogWriter:
    """A file that lines are appended to. `close` at the end."""

    def __init__(
        self, path: Path, most_waiting_bytes: int = MOST_WAITING_BYTES, mode: int = 0o666
    ) -> None:
        """Open the file, or make it with this mode, and its folder. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._most_waiting_bytes = path, most_waiting_bytes
        self._file = open(path, "ab", buffering=0, opener=partial(os.open, mode=mode))
        self._waiting = bytearray()
        self._lost_bytes = 0  # after what is waiting
        self._failing_since: float | None = None
        if self._file.tell():
            self.append(b"\n")  # a killed writer may have torn its last line

    @property
    def size_bytes(self) -> int:
        """The bytes that are in the file."""
        return self._file.tell()

    @property
    def waits(self) -> bool:
        """Return whether something has yet to be written."""
        return bool(self._waiting or self._lost_bytes)

    def append(self, lines: bytes | bytearray) -> None:
        """Write whole lines, or keep them until there is room."""
        if self.waits:
            self._write_waiting()
        if self._lost_bytes or len(self._waiting) + len(lines) > self._most_waiting_bytes:
            self._lost_bytes += len(lines)
            return
        self._waiting += lines
        self._write_waiting()

    def close(self) -> None:
        """Write what waits if there is room by now, and close the file."""
        self._write_waiting()
        if self.waits:
            lost_bytes = len(self._waiting) + self._lost_bytes
            log.warning("%s: its last %d bytes could not be written", self._path, lost_bytes)
        self._file.close()

    def _write_waiting(self) -> None:
        try:
            self._write()
            if self._lost_bytes:
                self._waiting += json.dumps({LOST: self._lost_bytes}).encode() + b"\n"
                self._lost_bytes = 0
                self._write()
        except OSError as error:
            if self._failing_since is None:
                self._failing_since = time.monotonic()
                log.warning(
                    "%s: cannot be written (%s); what comes waits in memory, as far as %d MB",
                    self._path,
                    error.strerror,
                    self._most_waiting_bytes >> 20,
                )
            return
        if self._failing_since is not None:
            failed_s = time.monotonic() - self._failing_since
            log.warning("%s: %s, after %.1f s", self._path, AGAIN, failed_s)
            self._failing_since = None

    def _write(self) -> None:
        """Write from where the last write ended. Raises OSError."""
        while self._waiting:
            del self._waiting[: self._file.write(self._waiting)]
