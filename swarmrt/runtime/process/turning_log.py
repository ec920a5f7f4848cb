"""A log that goes on for months: what is full gets a number, and is compressed beside."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from swarmrt.log_files import KEPT_BYTES, PART_BYTES, compress, turn_over
from swarmrt.log_writer import LogWriter
from swarmrt.runtime.process.aside import Aside

log = logging.getLogger("swarmrt.log")


class TurningLog:
    """The files of one log (`swarmrt/log_files.py`). `close` at the end."""

    def __init__(
        self,
        path: Path,
        mode: int = 0o666,
        part_bytes: int = PART_BYTES,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        """Open the file, or make it with this mode. Raises OSError."""
        self._path, self._mode = path, mode
        self._part_bytes, self._kept_bytes = part_bytes, kept_bytes
        self._writer = LogWriter(path, mode=mode)
        self._compressor: Aside | None = None
        self._compressing: Future[None] | None = None

    @property
    def waits(self) -> bool:
        """Return whether something has yet to be written."""
        return self._writer.waits

    def append(self, lines: bytes | bytearray) -> None:
        """Write whole lines, or keep them until there is room."""
        self._writer.append(lines)
        if self._writer.size_bytes >= self._part_bytes and not self._writer.waits:
            self._turn_over()

    def _turn_over(self) -> None:
        """Go on in another file. The full one is compressed beside; one at a time."""
        if self._compressing is not None:
            if not self._compressing.done():
                return  # a little later, then
            if (error := self._compressing.exception()) is not None:
                log.warning("%s: its parts stay as they are: %s", self._path, error)
        try:
            if self._path.exists():
                turn_over(self._path)
            writer = LogWriter(self._path, mode=self._mode)
        except OSError as error:  # what is open is written on, whatever its name is by now
            log.warning("%s: cannot be divided yet: %s", self._path, error)
            return
        self._writer.close()
        self._writer = writer
        if self._compressor is None:
            self._compressor = Aside("log")
        self._compressing = self._compressor.submit(partial(compress, self._path, self._kept_bytes))

    def close(self) -> None:
        self._writer.close()
        if self._compressor is not None:
            self._compressor.close()
