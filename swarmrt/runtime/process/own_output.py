"""The file that holds what this process prints, which must not fill the disk in months.

It is divided into parts (`swarmrt/log_files.py`) by the process itself: whoever writes can go on in
the next one without losing a line.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from swarmrt.log_files import compress, turn_over
from swarmrt.runtime.process.aside import end

log = logging.getLogger("swarmrt.outputs")

VARIABLE = "SWARMRT_OUTPUT"  # says to a process that was launched which file that is
LOOK_S = 10.0
PART_BYTES = 16 << 20
KEPT_BYTES = 64 << 20  # of what is compressed
CLOSE_S = 10.0
STREAMS = (1, 2)  # standard output and error


class OwnOutput:
    """A thread that keeps such a file short. `close` at the end."""

    def __init__(self, path: Path, look_s: float = LOOK_S, part_bytes: int = PART_BYTES) -> None:
        self._path, self._look_s, self._part_bytes = path, look_s, part_bytes
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="output", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        end(self._thread, CLOSE_S)

    def _look(self) -> None:
        while not self._is_over.wait(self._look_s):
            try:
                compress(self._path, KEPT_BYTES)  # that of the last look: nobody writes it by now
                if self._path.stat().st_size >= self._part_bytes:
                    self._begin_another()
            except OSError as error:
                log.warning("%s: cannot be divided yet: %s", self._path, error)

    def _begin_another(self) -> None:
        """Go on in another file. Raises OSError."""
        before = self._path.stat()
        ours = [stream for stream in STREAMS if os.path.samestat(os.fstat(stream), before)]
        turn_over(self._path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        another = os.open(self._path, flags, before.st_mode & 0o777)
        try:
            for stream in ours:
                os.dup2(another, stream)
        finally:
            os.close(another)
