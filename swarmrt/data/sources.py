"""The sources of text: this Python's own sources, a file, a folder, a token file."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarmrt.config import RunConfig
from swarmrt.data.codec import Codec
from swarmrt.errors import DataError

STDLIB_LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
STDLIB_CAP_BYTES = 20 << 20  # CPython 3.11 has 11 MB
SEPARATOR = b"\n\n"


def read_tokens(config: RunConfig, codec: Codec) -> tuple[NDArray[Any], str]:
    """Return all tokens in a fixed order, and what they are in words. Raises DataError."""
    source = config.data.source
    if source == "stdlib":
        folder = Path(sysconfig.get_path("stdlib"))
        files = list(_stdlib_files(folder))
        return _encode(files, folder, codec), f"Python's own sources, {len(files)} files"
    path = Path(source)
    if path.suffix == ".npy":
        return _token_file(path, config.model.vocab), f"token file {path}"
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        return _encode(files, path, codec), f"folder {path}, {len(files)} files"
    if path.is_file():
        return _encode([path], path, codec), f"file {path}"
    raise DataError(f"data.source {source!r}: no such file or folder")


def _stdlib_files(folder: Path) -> Iterator[Path]:
    size = 0
    for file in sorted(folder.rglob("*.py")):
        if not STDLIB_LEFT_OUT & set(file.relative_to(folder).parts):
            size += file.stat().st_size
            if size > STDLIB_CAP_BYTES:
                return
            yield file


def _encode(files: list[Path], source: Path, codec: Codec) -> NDArray[Any]:
    """The text files' tokens, one after the other; files with NUL bytes are no text."""
    texts = []
    for file in files:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from None
        if data and b"\0" not in data:
            texts.append(data)
    if not texts:
        raise DataError(f"data.source {str(source)!r}: holds no text")
    return codec.encode_file(SEPARATOR.join(texts))


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
