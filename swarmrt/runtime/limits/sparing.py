"""A log that others cannot fill: of each kind of line some a minute, and how many there were."""

from __future__ import annotations

import logging

MOST_LINES = 10  # of one kind
WINDOW_S = 60.0


class Sparing(logging.Filter):
    """Passes the first lines of each kind in a minute; the next one that passes tells how many more
    there were. Lines are of one kind when they differ in their arguments only."""

    def __init__(self, most: int = MOST_LINES, window_s: float = WINDOW_S) -> None:
        super().__init__()
        self._most, self._window_s = most, window_s
        self._windows: dict[str, tuple[float, int]] = {}  # when it began, and how many lines

    def filter(self, record: logging.LogRecord) -> bool:
        kind = str(record.msg)
        began, lines = self._windows.get(kind, (record.created, 0))
        if record.created - began >= self._window_s:
            if lines > self._most:
                record.msg = f"{record.msg} (and {lines - self._most:,} more like it before)"
            began, lines = record.created, 0
        self._windows[kind] = (began, lines + 1)
        return lines < self._most
