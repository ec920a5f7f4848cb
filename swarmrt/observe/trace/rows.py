"""The rows of one process in a timeline, as Chrome trace events. Spans in a row never overlap.

Times are whole microseconds. What may overlap, such as microbatches that wait, is opened in the
first row of its group that is free, and closed when it is over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Key = tuple[Any, ...]
Emit = Callable[[dict[str, Any]], None]
GROUPS = (
    "steps", "rounds", "evaluation", "checkpoint", "compute", "add", "queue", "send", "wait",
    "reduce", "state", "events",
)  # fmt: skip
"""In the order in which they are shown."""
MOST_ROWS = 1000  # of a group; only where they are shown depends on it
SHORTEST_US = 1  # so that it can be seen, and arrows can end in it


@dataclass
class _Row:
    thread: int
    free_at: int = 0
    is_open: bool = False


@dataclass
class _Span:
    row: _Row
    name: str
    start: int
    args: dict[str, Any] = field(default_factory=dict)


class Rows:
    """Emits what happened in process `pid`."""

    def __init__(self, pid: int, name: str, place: int, emit: Emit) -> None:
        self._pid, self._emit = pid, emit
        self._groups: dict[str, list[_Row]] = {}
        self._open: dict[Key, _Span] = {}
        self._about("process_name", pid, name=name)
        self._about("process_sort_index", pid, sort_index=place)

    def _about(self, what: str, thread: int, **args: Any) -> None:
        self._emit({"ph": "M", "name": what, "pid": self._pid, "tid": thread, "args": args})

    # ------------------------------------------------------------------ spans

    def span(self, group: str, name: str, start: int, end: int, **args: Any) -> int:
        """Draw a span in the group's only row: what begins before the last one has ended is cut.
        Returns the thread."""
        rows = self._groups.get(group)
        row = rows[0] if rows else self._new_row(group)
        start = max(start, row.free_at)
        self._write(_Span(row, name, start, args), max(end, start + SHORTEST_US))
        return row.thread

    def brief(self, group: str, name: str, start: int, end: int, **args: Any) -> int:
        """Draw a span in a free row. The end may lie ahead. Returns the thread."""
        row = self._free_row(group, start)
        self._write(_Span(row, name, start, args), max(end, start + SHORTEST_US))
        return row.thread

    def open(self, group: str, key: Key, name: str, start: int, **args: Any) -> int:
        """Begin a span until `close(key)`; one that is open by this key ends here. Returns the
        thread."""
        self.close(key, start)
        row = self._free_row(group, start)
        row.is_open = True
        self._open[key] = _Span(row, name, start, args)
        return row.thread

    def close(self, key: Key, end: int, **args: Any) -> None:
        """End the span that is open by this key. Nothing happens if none is."""
        span = self._open.pop(key, None)
        if span is not None:
            span.args |= args
            span.row.is_open = False
            self._write(span, max(end, span.start + SHORTEST_US))

    def is_open(self, key: Key) -> bool:
        return key in self._open

    def open_keys(self) -> list[Key]:
        return list(self._open)

    def _write(self, span: _Span, end: int) -> None:
        span.row.free_at = end
        self._emit(
            {
                "ph": "X",
                "name": span.name,
                "pid": self._pid,
                "tid": span.row.thread,
                "ts": span.start,
                "dur": end - span.start,
                "args": span.args,
            }
        )

    def _free_row(self, group: str, at: int) -> _Row:
        for row in self._groups.get(group, ()):
            if not row.is_open and row.free_at <= at:
                return row
        return self._new_row(group)

    def _new_row(self, group: str) -> _Row:
        rows = self._groups.setdefault(group, [])
        place = GROUPS.index(group) * MOST_ROWS + len(rows)
        row = _Row(self._pid * MOST_ROWS * len(GROUPS) + place)  # threads differ over processes
        rows.append(row)
        name = group if len(rows) == 1 else f"{group} {len(rows)}"
        self._about("thread_name", row.thread, name=name)
        self._about("thread_sort_index", row.thread, sort_index=place)
        return row

    # ------------------------------------------------------------------ the rest

    def instant(self, name: str, at: int, **args: Any) -> None:
        rows = self._groups.get("events")
        row = rows[0] if rows else self._new_row("events")
        event = {"ph": "i", "s": "t", "name": name, "pid": self._pid, "tid": row.thread}
        self._emit({**event, "ts": at, "args": args})

    def counter(self, name: str, at: int, value: float) -> None:
        event = {"ph": "C", "name": name, "pid": self._pid, "ts": at}
        self._emit({**event, "args": {name: value}})

    def arrow(self, number: int, thread: int, at: int, *, begins: bool) -> None:
        """Draw an arrow from the span that starts now in this row, or to it; both ends have one
        number."""
        event = {"ph": "s"} if begins else {"ph": "f", "bp": "e"}
        place = {"pid": self._pid, "tid": thread, "ts": at}
        self._emit({**event, "cat": "frame", "name": "frame", "id": number, **place})
