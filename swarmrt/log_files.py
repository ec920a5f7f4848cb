"""The files of a log that may grow for months.

    events.1.jsonl.zst  events.2.jsonl.zst  …  events.jsonl

What is written goes into the one without a number. When that is large it gets the next number and
is compressed (zstandard, RFC 8878), to about a fifteenth. When all are too large together, the
oldest go.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

PART_BYTES = 64 << 20  # of a file, before it is compressed
KEPT_BYTES = 4 << 30  # of all compressed ones together: months of a busy trainer
COMPRESSED = ".zst"


def read_lines(log: Path) -> Iterator[str]:
    """Yield the lines of all parts that are there, the oldest first.

    What is no UTF-8 is replaced. Raises OSError.
    """
    for part in [*(part for _, part in _parts(log)), log]:
        with TextIOWrapper(_open(part), encoding="utf-8", errors="replace") as lines:
            yield from lines


def json_lines(log: Path) -> Iterator[dict[str, Any]]:
    """Yield a log's records. A line that a killed writer has torn is left out. Raises OSError."""
    return _entries_in(read_lines(log))


def last_entries(log: Path, most_bytes: int) -> Iterator[dict[str, Any]]:
    """Yield the records at the end of the newest file, if there is one. Raises OSError."""
    if not log.exists():
        return
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - most_bytes))
        yield from _entries_in(line.decode(errors="replace") for line in file)


def _entries_in(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry


class Follower:
    """A reader of what goes into a log, into whichever of its files."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._number = 1  # of the file that is being read, once it is full
        self._offset = 0  # in it

    def read(self) -> bytes:
        """Return what has come since the last call; nothing while there is no log. Raises
        OSError."""
        found = b""
        while True:
            parts = _parts(self._log)
            try:
                newest = self._log.open("rb")
            except FileNotFoundError:
                return found  # it has just got its number, or was never written
            with newest:
                if _parts(self._log) != parts:
                    continue  # this may be one of them by now
                for number, part in parts:
                    if number >= self._number:
                        found += self._rest_of(number, part)
                self._turn_to(max((number for number, _ in parts), default=0) + 1)
                newest.seek(self._offset)
                data = newest.read()
            self._offset += len(data)
            return found + data

    def _rest_of(self, number: int, part: Path) -> bytes:
        self._turn_to(number)
        with _open(part) as file:
            return file.read()[self._offset :]

    def _turn_to(self, number: int) -> None:
        if number != self._number:
            self._number, self._offset = number, 0


def is_whole(log: Path) -> bool:
    """Return whether the beginning of the log is still there."""
    return next((number == 1 for number, _ in _parts(log)), True)


def turn_over(log: Path) -> None:
    """Give the file that was written its number: what comes next is another one. Raises OSError."""
    log.rename(log.with_suffix(f".{_newest(log) + 1}{log.suffix}"))


def compress(log: Path, kept_bytes: int = KEPT_BYTES) -> None:
    """Compress the parts that are not, and let go of the oldest ones. Raises OSError."""
    for _, part in _parts(log):
        if part.suffix != COMPRESSED:
            packed = part.with_name(part.name + COMPRESSED)
            temporary = packed.with_name(f".{packed.name}.tmp")
            try:
                with part.open("rb") as source, temporary.open("wb") as target:
                    zstandard.ZstdCompressor().copy_stream(source, target)
                shutil.copymode(part, temporary)
                temporary.rename(packed)
            finally:
                temporary.unlink(missing_ok=True)
            part.unlink()
    sizes = [(part, part.stat().st_size) for _, part in _parts(log)]
    total_bytes = sum(size for _, size in sizes)
    for part, size in sizes[:-1]:
        if total_bytes > kept_bytes:
            part.unlink()
            total_bytes -= size


def _parts(log: Path) -> list[tuple[int, Path]]:
    """Return the numbered parts in their order, each once."""
    found: dict[int, Path] = {}
    for path in log.parent.glob(f"{log.stem}.*{log.suffix}*"):
        number = path.name.removeprefix(f"{log.stem}.").removesuffix(COMPRESSED)
        number = number.removesuffix(log.suffix)
        if number.isdecimal() and (path.suffix == COMPRESSED or int(number) not in found):
            found[int(number)] = path
    return sorted(found.items())


def _newest(log: Path) -> int:
    """Return the number of the newest full part, or 0."""
    return max((number for number, _ in _parts(log)), default=0)


def _open(part: Path) -> BinaryIO:
    """Open a part. One that is not compressed may just have been."""
    packed = part.with_name(part.name + COMPRESSED)
    if part.suffix != COMPRESSED:
        try:
            return part.open("rb")
        except FileNotFoundError:
            if not packed.exists():
                raise
            part = packed
    return cast(BinaryIO, zstandard.open(part, "rb"))
