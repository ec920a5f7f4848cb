"""The log of a real process's core: `events.jsonl`, and the parts of it that are full."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from swarmrt.log_files import PART_BYTES, compress, turn_over
from swarmrt.log_writer import LogWriter
from swarmrt.runtime.process.aside import Aside
from swarmrt.scheduler.recording import to_json

log = logging.getLogger("swarmrt.event_log")

MOST_HELD_BYTES = 1 << 20
OWNERS = 0o600  # a log is for its owner alone: it has the keys of seals


class EventLog:
    """The log `events.jsonl`: one line for each (now, event, instructions).

    It is in the file at once; or, while messages are held back to leave together, with the next
    line or `flush` that is not, which comes before they leave. So whatever others have seen of this
    process is in its log, beacons by UDP aside, which repeat what it has told before, and what
    waits for room on a full disk.
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
        self._writer = LogWriter(path, mode=OWNERS) if path is not None else None
        self._compressor: Aside | None = None
        self._compressing: Future[None] | None = None

    def write(self, entry: object) -> None:
        if self._writer is None:
            return
        self._held += to_json(entry)
        self._held += b"\n"
        if not self._waits() or len(self._held) > MOST_HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Bring what was held back into the file."""
        if self._writer is not None and self._held:
            self._writer.append(self._held)
            self._held.clear()
            if self._writer.size_bytes >= self._part_bytes and not self._writer.waits:
                self._turn_over()

    def lacks_room(self) -> bool:
        """Try to write what waits for room; return whether some is left."""
        if self._writer is None:
            return False
        self.flush()
        self._writer.append(b"")
        return self._writer.waits

    def _turn_over(self) -> None:
        """Go on in another file. The full one is compressed beside; one at a time."""
        if self._path is None or self._writer is None:
            return
        if self._compressing is not None:
            if not self._compressing.done():
                return  # a little later, then
            if (error := self._compressing.exception()) is not None:
                log.warning("%s: its parts stay as they are: %s", self._path, error)
        try:
            if self._path.exists():
                turn_over(self._path)
            writer = LogWriter(self._path, mode=OWNERS)
        except OSError as error:  # what is open is written on, whatever its name is by now
            log.warning("%s: cannot be divided yet: %s", self._path, error)
            return
        self._writer.close()
        self._writer = writer
        if self._compressor is None:
            self._compressor = Aside("log")
        self._compressing = self._compressor.submit(partial(compress, self._path))

    def close(self) -> None:
        self.flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._compressor is not None:
            self._compressor.close()
