"""The sources of text: this Python's own sources, a file, a folder, a token file."""

from __future__ import annotations

import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from swarmrt.config import STDLIB, RunConfig
from swarmrt.data.codec import Codec
from swarmrt.data.text import EMPTY, pieces_of, why_no_text
from swarmrt.errors import DataError

STDLIB_LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
STDLIB_CAP_BYTES = 20 << 20  # CPython 3.11 has 11 MB
SEPARATOR = b"\n\n"


def read_tokens(config: RunConfig, codec: Codec) -> tuple[NDArray[Any], str]:
    """Return all tokens in a fixed order, and what they are in words. Raises DataError."""
    source = config.data.source
    if source == STDLIB:
        folder = Path(sysconfig.get_path("stdlib"))
        tokens, count = _read(list(_stdlib_files(folder)), folder, codec)
        return tokens, f"Python's own sources, {count}"
    path = Path(source)
    if path.suffix == ".npy":
        return _token_file(path, config.model.vocab), f"token file {path}"
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        tokens, count = _read(files, path, codec)
        return tokens, f"folder {path}, {count}"
    if path.is_file():
        return _read([path], path, codec)[0], f"file {path}"
    raise DataError(f"data.source {source!r}: no such file or folder")


def _stdlib_files(folder: Path) -> Iterator[Path]:
    size = 0
    for file in sorted(folder.rglob("*.py")):
        if not STDLIB_LEFT_OUT & set(file.relative_to(folder).parts):
            size += file.stat().st_size
            if size > STDLIB_CAP_BYTES:
                return
            yield file


def _read(files: list[Path], source: Path, codec: Codec) -> tuple[NDArray[Any], str]:
    """Return the text files' tokens, one after the other, and how many files those are."""
    found = {file: why_no_text(file) for file in files}
    texts = [file for file, why in found.items() if not why]
    no_text = {file: why for file, why in found.items() if why and why != EMPTY}
    if not texts:
        why = "".join(f"; {file} {why}" for file, why in list(no_text.items())[:1])
        raise DataError(f"data.source {str(source)!r}: holds no text{why}")
    count = f"{len(texts)} file{'s' if len(texts) > 1 else ''}"
    left_out = f" ({len(no_text)} others are no text)" if no_text else ""
    return _on_disk(_encoded(texts, codec), codec.dtype), count + left_out


def _encoded(files: list[Path], codec: Codec) -> Iterator[NDArray[Any]]:
    for number, file in enumerate(files):
        place = 0
        for piece in pieces_of(file):
            lead = SEPARATOR if number and not place else b""
            try:
                yield codec.encode_piece(lead + piece)
            except UnicodeDecodeError as error:
                at = place + error.start - len(lead)
                raise DataError(
                    f"{file}: byte {error.object[error.start]:#x} at {at} is not UTF-8, which "
                    "data.tokenizer reads; convert the file to UTF-8"
                ) from None
            place += len(piece)


def _on_disk(pieces: Iterable[NDArray[Any]], dtype: DTypeLike) -> NDArray[Any]:
    """Return what they are together, in a temporary file that has no name and goes with us."""
    with tempfile.TemporaryFile() as file:
        try:
            for piece in pieces:
                file.write(np.ascontiguousarray(piece, dtype=dtype).data)
            file.flush()
            return np.memmap(file, dtype=dtype, mode="r")
        except OSError as error:
            raise DataError(
                f"tokens of the text: cannot be written to {tempfile.gettempdir()}: "
                f"{error.strerror}; make room there, or name another folder in TMPDIR"
            ) from None


def _token_file(path: Path, vocab: int) -> NDArray[Any]:
    """A one-dimensional .npy of integers, mapped into memory, not read."""
    try:
        tokens: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"data.source {str(path)!r}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a .npy file of tokens: {error}") from None
    if tokens.ndim != 1 or tokens.dtype.kind not in "ui":
        raise DataError(
            f"{path}: holds {tokens.dtype} of {tokens.ndim} dimensions; tokens are integers in one"
        )
    if len(tokens) and not (0 <= int(tokens.min()) and int(tokens.max()) < vocab):
        raise DataError(f"{path}: has tokens outside of 0 to model.vocab - 1 = {vocab - 1}")
    return tokens
