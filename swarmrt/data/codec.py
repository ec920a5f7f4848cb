"""Text to tokens and back: plain bytes, or a tokenizer by file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from swarmrt.config import RunConfig
from swarmrt.errors import DataError


class Codec(Protocol):
    vocab: int
    dtype: DTypeLike  # of tokens that are kept

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: Iterable[int]) -> str: ...

    def encode_piece(self, text: bytes) -> NDArray[Any]:
        """Return the tokens of a piece of a file. Raises UnicodeDecodeError."""
        ...


class ByteCodec:
    """A token is a byte of UTF-8."""

    vocab = 256
    dtype: DTypeLike = np.uint8

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Iterable[int]) -> str:
        return bytes(token for token in tokens if token < 256).decode(errors="replace")

    def encode_piece(self, text: bytes) -> NDArray[Any]:
        return np.frombuffer(text, dtype=self.dtype)


class FileCodec:
    """A `tokenizers` JSON file. Raises DataError when it cannot be used.

    The file's own settings for batches (truncation, padding) and for training (dropout of merges)
    are left aside: they would change the text.
    """

    def __init__(self, path: Path) -> None:
        try:
            from tokenizers import Tokenizer  # of the extra `hf`
        except ImportError:
            raise DataError(
                f"data.tokenizer {path}: needs the tokenizers package; pip install 'swarmrt[hf]'"
            ) from None
        if not path.is_file():
            raise DataError(f"data.tokenizer {path}: no such file")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 - the package raises bare Exception
            raise DataError(f"data.tokenizer {path}: not a tokenizers JSON file: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if getattr(self._tokenizer.model, "dropout", None):
            self._tokenizer.model.dropout = None
        ids = self._tokenizer.get_vocab(with_added_tokens=True).values()
        self.vocab: int = max(ids, default=-1) + 1
        self.dtype: DTypeLike = np.min_scalar_type(max(0, self.vocab - 1))

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Iterable[int]) -> str:
        return str(self._tokenizer.decode(list(tokens)))

    def encode_piece(self, text: bytes) -> NDArray[Any]:
        found = self._tokenizer.encode_batch_fast([text.decode()], add_special_tokens=False)
        return np.asarray(found[0].ids, dtype=self.dtype)


class NoCodec:
    """The codec of a token file without a tokenizer: nobody knows what its ids mean."""

    dtype: DTypeLike = np.int64

    def __init__(self, source: str, vocab: int) -> None:
        self.vocab = vocab
        self._error = DataError(
            f"{source}: holds token ids; set data.tokenizer to read and write them as text"
        )

    def encode(self, text: str) -> list[int]:
        raise self._error

    def decode(self, tokens: Iterable[int]) -> str:
        raise self._error

    def encode_piece(self, text: bytes) -> NDArray[Any]:
        raise self._error


def open_codec(config: RunConfig) -> Codec:
    """The run's tokenizer; its vocabulary fits the model's. Raises DataError."""
    path = config.data.tokenizer
    if path is None and config.data.source.endswith(".npy"):
        return NoCodec(config.data.source, config.model.vocab)
    codec: Codec = FileCodec(Path(path)) if path else ByteCodec()
    if codec.vocab > config.model.vocab:
        what = f"data.tokenizer {path}" if path else "text read as bytes"
        raise DataError(
            f"{what} has {codec.vocab} tokens, but model.vocab is {config.model.vocab}; raise it"
        )
    return codec
