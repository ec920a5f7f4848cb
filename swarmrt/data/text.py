"""Text files, read piece by piece, so that any amount of text takes little memory.

Where a piece ends follows from the text alone, so that everybody gets the same tokens: after a line
that is followed by more than blanks, as near to PIECE_BYTES as there is one. A longer line is cut
before a blank, or between characters.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from swarmrt.errors import DataError

PIECE_BYTES = 1 << 18
EMPTY = "is empty"
FORMATS = {
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it",
    b"\xfd7zXZ\x00": "compressed by xz; unpack it",
    b"BZh": "compressed by bzip2; unpack it",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"PAR1": "a Parquet file; write its text into a file",
    b"%PDF": "a PDF; write its text into a file",
    b"\xff\xfe": "UTF-16; convert it to UTF-8",
    b"\xfe\xff": "UTF-16; convert it to UTF-8",
}


def why_no_text(file: Path) -> str:
    """Return why the file is no text, or nothing if it is. Raises DataError."""
    place = 0
    for block in _blocks(file):
        if place == 0:
            for begin, what in FORMATS.items():
                if block.startswith(begin):
                    return f"is {what}"
        if b"\0" in block:
            return f"has a NUL byte at {place + block.index(0)}"
        place += len(block)
    return "" if place else EMPTY


def pieces_of(file: Path) -> Iterator[bytes]:
    """The file's text. Raises DataError."""
    text = b""
    for block in _blocks(file):
        text += block
        while len(text) > PIECE_BYTES:
            end = _end_of_piece(text[: PIECE_BYTES + 1])
            yield text[:end]
            text = text[end:]
    if text:
        yield text


def _end_of_piece(text: bytes) -> int:
    """Return where a piece ends, before the last of these bytes."""
    line = len(text) - 1
    while (line := text.rfind(b"\n", 0, line)) >= 0:
        if not text[line + 1 : line + 2].isspace():
            return line + 1
    blank = text.rfind(b" ", 1)
    if blank > 0:
        return blank
    end = len(text) - 1
    while end > len(text) - 4 and text[end] & 0xC0 == 0x80:  # in the midst of a character
        end -= 1
    return end


def _blocks(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as opened:
            while block := opened.read(PIECE_BYTES):
                yield block
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None
