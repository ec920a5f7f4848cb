"""The files of a log that may grow for months.

    events.1.jsonl.zst  events.2.jsonl.zst  …  events.jsonl

What is written goes into the one without a number. When that is large it gets the next number and
is compressed (zstandard, RFC 8878), to about a fifteenth. When all are too large together, the
oldest go.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

import zstandard

PART_BYTES = 64 << 20  # of a file, before it is compressed
KEPT_BYTES = 4 << 30  # of all compressed ones together: months of a busy trainer
COMPRESSED = ".zst"


def read_lines(log: Path) -> Iterator[str]:
    """Yield the lines of all parts that are there, the oldest first.

    What is no UTF-8 is replaced. Raises OSError.
    """
    for part in [*(part for _, part in _parts(log)), log]:
        with _open(part) as lines:
            yield from lines


def is_whole(log: Path) -> bool:
    """Return whether the beginning of the log is still there."""
    return next((number == 1 for number, _ in _parts(log)), True)


def turn_over(log: Path) -> None:
    """Give the file that was written its number: what comes next is another one. Raises OSError."""
    newest = max((number for number, _ in _parts(log)), default=0)
    log.rename(log.with_suffix(f".{newest + 1}{log.suffix}"))


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


def _open(part: Path) -> TextIO:
    """Open a part. One that is not compressed may just have been."""
    packed = part.with_name(part.name + COMPRESSED)
    if part.suffix != COMPRESSED:
        try:
            return part.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            if not packed.exists():
                raise
            part = packed
    text = zstandard.open(part, "rt", encoding="utf-8", errors="replace")
    return cast(TextIO, text)
