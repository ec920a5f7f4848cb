"""The order of the data: a function of (seed, step, index), never of who asks or when.

The text is cut into disjoint windows of one sequence and the token after it. Held-out windows
come from a few spans spread over the text, in an order that every evaluation shares. Each epoch
goes through all training windows in an order of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarmrt.config import RunConfig
from swarmrt.data.codec import Codec, open_codec
from swarmrt.data.sources import read_tokens
from swarmrt.errors import DataError
from swarmrt.ids import MicrobatchId

HELD_OUT_SPANS = 16
EPOCHS_KEPT = 3  # one that ends, one that begins, and the next
HASHED_AT_ONCE = 1 << 20  # tokens
MOST_NAMED = 4  # windows of a microbatch
COUNTED_AT_ONCE = 4096  # windows: a few MB of token ids

Batch = tuple[NDArray[np.int64], NDArray[np.int64]]


def open_data(config: RunConfig) -> Data:
    """The run's data. Raises DataError, naming the file."""
    codec = open_codec(config)
    tokens, what = read_tokens(config, codec)
    return Data(config, codec, tokens, what)


class Data:
    def __init__(self, config: RunConfig, codec: Codec, tokens: NDArray[Any], what: str) -> None:
        self.vocab = config.model.vocab
        self.description = f"{what}, {len(tokens):,} tokens"
        self._codec, self._tokens = codec, tokens
        self._seed = config.run.seed
        self._sequence = config.model.sequence
        self._batch = config.batch
        self._evaluated = config.evaluation.microbatches
        windows = len(tokens) // (self._sequence + 1)
        if windows < 2:
            raise DataError(
                f"data.source {config.data.source!r} has {len(tokens)} tokens; two sequences of "
                f"model.sequence {self._sequence} need {2 * (self._sequence + 1)}"
            )
        self.training, held_out = split(windows, config.data.held_out)
        self.held_out = np.random.default_rng(0).permutation(held_out)  # so that few stand for all
        self._order = lru_cache(maxsize=EPOCHS_KEPT)(self._shuffled)

    def microbatch(self, microbatch: MicrobatchId) -> Batch:
        """Inputs and targets, int64 [microbatch, sequence]; targets are one token later.

        Held-out microbatches depend on their index only, so that evaluations compare.
        """
        return self._windows(self._windows_of(microbatch))

    def _windows_of(self, microbatch: MicrobatchId) -> NDArray[np.int64]:
        size = self._batch.microbatch
        if microbatch.held_out:
            places = np.arange(size) + microbatch.index * size
            return np.asarray(self.held_out[places % len(self.held_out)])
        first = microbatch.position(self._batch.microbatches) * size
        places = np.arange(first, first + size)
        epochs, offsets = np.divmod(places, len(self.training))
        windows = [self._order(int(e))[o] for e, o in zip(epochs, offsets, strict=True)]
        return np.asarray(windows)

    def place_of(self, microbatch: MicrobatchId) -> str:
        """Return where a microbatch's windows lie in the data, for people."""
        windows, size = self._windows_of(microbatch), self._sequence + 1
        first = [f"{w * size:,} to {(w + 1) * size - 1:,}" for w in windows[:MOST_NAMED].tolist()]
        more = f" and {len(windows) - len(first)} more" if len(windows) > len(first) else ""
        return f"tokens {', '.join(first)}{more} of the data, counted from 0"

    def epoch_of(self, microbatch: MicrobatchId) -> int:
        """Return the epoch in which a microbatch that is trained on begins."""
        number = microbatch.position(self._batch.microbatches)
        return number * self._batch.microbatch // len(self.training)

    def shuffle(self, epoch: int) -> None:
        """Find the order of an epoch, which takes long where there are many windows. Whoever has
        not called it waits for that in `microbatch`. Any thread may."""
        self._order(epoch)

    @cached_property
    def largest_token(self) -> int:
        """Return the largest of all its tokens."""
        return int(self._tokens.max())

    def digest(self) -> bytes:
        """Return a SHA-256 of all that decides which tokens each microbatch has."""
        order = (self._seed, self._sequence, self._batch.microbatch, self._batch.microbatches)
        what = (order, len(self.training), self.fingerprint)
        return hashlib.sha256(repr(what).encode()).digest()

    @cached_property
    def fingerprint(self) -> str:
        """Return 32 hex digits of the tokens, however they are kept."""
        found = hashlib.blake2b(digest_size=16)
        for first in range(0, len(self._tokens), HASHED_AT_ONCE):
            piece = self._tokens[first : first + HASHED_AT_ONCE]
            found.update(np.ascontiguousarray(piece, dtype="<u4").data)
        return found.hexdigest()

    def unigram_loss(self) -> float:
        """Nats a token of what is evaluated, if each token came alone.

        By the frequencies of the training windows, each token counted once more than seen.
        """
        counts = np.ones(self.vocab)
        for first in range(0, len(self.training), COUNTED_AT_ONCE):
            _, targets = self._windows(self.training[first : first + COUNTED_AT_ONCE])
            counts += np.bincount(targets.ravel(), minlength=self.vocab)
        log_share = np.log(counts / counts.sum())
        batches = range(self._evaluated)
        evaluated = [self.microbatch(MicrobatchId(0, i, held_out=True))[1] for i in batches]
        return float(-log_share[np.concatenate(evaluated)].mean())

    def encode(self, text: str) -> list[int]:
        return self._codec.encode(text)

    def decode(self, tokens: Iterable[int]) -> str:
        return self._codec.decode(tokens)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, epoch]).permutation(self.training)

    def _window(self, window: int) -> NDArray[np.int64]:
        start = int(window) * (self._sequence + 1)
        return np.asarray(self._tokens[start : start + self._sequence + 1], dtype=np.int64)

    def _windows(self, windows: NDArray[np.int64]) -> Batch:
        tokens = np.stack([self._window(window) for window in windows])
        return tokens[:, :-1].copy(), tokens[:, 1:].copy()


def split(windows: int, held_out: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and held-out windows: at least one of each, and no window in both."""
    number = min(max(1, round(windows * held_out)), windows - 1)
    spans = min(HELD_OUT_SPANS, number)
    is_held_out = np.zeros(windows, dtype=bool)
    for span in range(spans):
        size = number // spans + (span < number % spans)
        start = (2 * span + 1) * windows // (2 * spans) - size // 2
        is_held_out[max(0, start) : max(0, start) + size] = True
    every = np.arange(windows)
    return every[~is_held_out], every[is_held_out]
