"""The files that hold what processes print, which must not fill the disk in months.

They are written by others, who keep them open: what is there is copied into a part of its own
(`swarmrt/log_files.py`), and cut off. What is printed between the two is lost.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from swarmrt.log_files import compress, copy_out
from swarmrt.runtime.process.aside import end

log = logging.getLogger("swarmrt.outputs")

LOOK_S = 10.0
PART_BYTES = 16 << 20
KEPT_BYTES = 64 << 20  # of what is compressed, for each process
CLOSE_S = 10.0


class Outputs:
    """A thread that looks after such files. `close` at the end."""

    def __init__(self, look_s: float = LOOK_S, part_bytes: int = PART_BYTES) -> None:
        self._look_s, self._part_bytes = look_s, part_bytes
        self._paths: dict[Path, None] = {}
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, path: Path) -> None:
        """Look after a file that is written by appending."""
        self._paths = {**self._paths, path: None}
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="outputs", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        if self._thread is not None:
            end(self._thread, CLOSE_S)

    def _look(self) -> None:
        while not self._is_over.wait(self._look_s):
            for path in self._paths:
                self._keep_short(path)

    def _keep_short(self, path: Path) -> None:
        try:
            if path.stat().st_size >= self._part_bytes:
                copy_out(path)
                compress(path, KEPT_BYTES)
        except OSError as error:
            log.warning("%s: cannot be divided yet: %s", path, error)
