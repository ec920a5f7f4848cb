"""Recorded churn: a CSV file with a line `time_ms,add|remove,name` for each change."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from swarmrt.errors import DataError
from swarmrt.foreign import printable

MOST_CHANGES = 10_000_000
LONGEST_MS = 10 * 366 * 24 * 3_600_000  # ten years


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """A peer that comes or goes."""

    at_s: float
    joins: bool
    name: str


def read_trace(path: Path) -> tuple[Change, ...]:
    """Return the changes of a file, in its order. Raises DataError naming a line that is wrong."""
    changes: list[Change] = []
    present: set[str] = set()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if not row or (number == 1 and row[0].strip() == "time_ms"):
                    continue
                change = _change(row, f"{path}, line {number}")
                if changes and change.at_s < changes[-1].at_s:
                    raise DataError(f"{path}, line {number}: is earlier than the line before it")
                if change.joins == (change.name in present):
                    what = (
                        "joins, but is there already" if change.joins else "leaves without a join"
                    )
                    raise DataError(f"{path}, line {number}: {printable(change.name)} {what}")
                (present.add if change.joins else present.remove)(change.name)
                changes.append(change)
                if len(changes) > MOST_CHANGES:
                    raise DataError(f"{path}: has more than {MOST_CHANGES:,} changes")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is no CSV file of lines time_ms,add|remove,name") from error
    if not any(change.joins for change in changes):
        raise DataError(f"{path}: nobody joins; lines must be time_ms,add|remove,name")
    return tuple(changes)


def write_trace(changes: tuple[Change, ...], path: Path) -> None:
    """Write changes so that `read_trace` returns them, to the millisecond."""
    lines = (
        f"{round(change.at_s * 1000)},{'add' if change.joins else 'remove'},{change.name}\n"
        for change in changes
    )
    try:
        path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error


def _change(row: list[str], where: str) -> Change:
    fields = [field.strip() for field in row]
    if len(fields) != 3 or fields[1] not in ("add", "remove") or not fields[2]:
        shown = printable(",".join(row), 60)
        raise DataError(f"{where}: {shown!r} is not time_ms,add|remove,name")
    if not (fields[0].isascii() and fields[0].isdigit()) or len(fields[0]) > 18:
        raise DataError(f"{where}: {printable(fields[0], 30)!r} is no time in milliseconds")
    if int(fields[0]) > LONGEST_MS:
        raise DataError(f"{where}: is more than ten years after the beginning")
    return Change(int(fields[0]) / 1000, fields[1] == "add", fields[2])
