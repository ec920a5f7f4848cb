"""The log of a real process's core: `events.jsonl`, and the parts of it that are full."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from swarmrt.log_files import PART_BYTES, compress, turn_over
from swarmrt.runtime.aside import Aside
from swarmrt.scheduler.recording import to_json

log = logging.getLogger("swarmrt.event_log")

MOST_HELD_BYTES = 1 << 20


class EventLog:
    """The log `events.jsonl`: one line for each (now, event, instructions).

    It is in the file at once; or, while messages are held back to leave together, with the next
    line or `flush` that is not, which comes before they leave. So whatever others have seen of this
    process is in its log, beacons by UDP aside, which repeat what it has told before.
    """

    def __init__(
        self,
        path: Path | None,
        waits: Callable[[], bool] = lambda: False,
        part_bytes: int = PART_BYTES,
    ) -> None:
        """`waits` tells whether messages are being held back."""
        self._path, self._waits, self._part_bytes = path, waits, part_bytes
        self._held = bytearray()
        self._file: BinaryIO | None = None
        self._compressor: Aside | None = None
        self._compressing: Future[None] | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open(path)
            if self._file.tell():
                self._file.write(b"\n")  # a killed writer may have torn its last line

    def write(self, entry: dict[str, Any]) -> None:
        if self._file is None:
            return
        self._held += to_json(entry)
        self._held += b"\n"
        if not self._waits() or len(self._held) > MOST_HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Bring what was held back into the file."""
        if self._file is not None and self._held:
            held, self._held = self._held, bytearray()  # once, also where the disk is full
            self._file.write(held)
            self._file.flush()
            if self._file.tell() >= self._part_bytes:
                self._turn_over()

    def _turn_over(self) -> None:
        """Go on in another file. The full one is compressed beside; one at a time."""
        if self._path is None or self._file is None:
            return
        if self._compressing is not None:
            if not self._compressing.done():
                return  # a little later, then
            if (error := self._compressing.exception()) is not None:
                log.warning("%s: its parts stay as they are: %s", self._path, error)
        turn_over(self._path)
        self._file.close()
        self._file = _open(self._path)
        if self._compressor is None:
            self._compressor = Aside("log")
        self._compressing = self._compressor.submit(partial(compress, self._path))

    def close(self) -> None:
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._compressor is not None:
            self._compressor.close()


def _open(path: Path) -> BinaryIO:
    """Open a log at its end, for its owner alone: it has the keys of seals."""
    return open(path, "ab", opener=partial(os.open, mode=0o600))
