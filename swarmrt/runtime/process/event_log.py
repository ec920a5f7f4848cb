"""The log of a real process's core: `events.jsonl`, and the parts of it that are full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from swarmrt.log_files import PART_BYTES
from swarmrt.runtime.process.turning_log import TurningLog
from swarmrt.scheduler.recording import to_json

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
        self._waits, self._held = waits, bytearray()
        self._log = TurningLog(path, OWNERS, part_bytes) if path is not None else None

    def write(self, entry: object) -> None:
        if self._log is None:
            return
        self._held += to_json(entry)
        self._held += b"\n"
        if not self._waits() or len(self._held) > MOST_HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Bring what was held back into the file."""
        if self._log is not None and self._held:
            self._log.append(self._held)
            self._held.clear()

    def lacks_room(self) -> bool:
        """Try to write what waits for room; return whether some is left."""
        if self._log is None:
            return False
        self.flush()
        self._log.append(b"")
        return self._log.waits

    def close(self) -> None:
        self.flush()
        if self._log is not None:
            self._log.close()
            self._log = None
