"""The few largest frequencies of each chunk of values, and the signs of what several of them add
up to: what replicas send each other with decoupled momentum (DeMo: Peng, Quesnelle and Kingma 2024,
arXiv 2411.19870).

A chunk is so many values that lie beside each other, the last one filled up with zeros. Its
frequencies are those of the orthonormal discrete cosine transform. Both kinds of message have as
many bytes for each chunk, whatever is in it, so a cut between chunks cuts a message too:
- *Peaks*: the largest frequencies, in the codec's encoding (int8 with one scale a chunk), then
  their indices, which count up: one byte each, two where a chunk has more than 256 values, and none
  where all frequencies are sent.
- *Signs*: a byte that says whether the chunk moves at all (0: no, 1: yes, else it is not finite),
  then a bit for each value, the first one highest: 1 for up, 0 for down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from swarmrt.kernels.codecs import SCALE_BYTES, Bf16Codec, Int8Codec, Precision

ONE_BYTE = 256  # values of a chunk whose indices fit into a byte
ROWS_AT_ONCE = 1 << 12  # chunks that are transformed together, which bounds what that takes
STILL, MOVES, NOT_FINITE = 0, 1, 2


@dataclass(frozen=True)
class Spectrum:
    """Messages about values of one dtype, at least float32, in chunks of a multiple of 8."""

    chunk: int
    top_k: int
    precision: Precision
    dtype: torch.dtype

    # ------------------------------------------------------------------ sizes

    def rows(self, count: int) -> int:
        """Return how many chunks so many values have."""
        return -(-count // self.chunk)

    @property
    def peaks_bytes(self) -> int:
        """Return the size of a chunk's peaks."""
        values = {"int8": SCALE_BYTES + self.top_k, "bfloat16": 2 * self.top_k}
        return values.get(self.precision, self.dtype.itemsize * self.top_k) + self._index_bytes

    @property
    def signs_bytes(self) -> int:
        """Return the size of a chunk's signs."""
        return 1 + self.chunk // 8

    @property
    def _index_bytes(self) -> int:
        """Return the size of the indices of a chunk's peaks."""
        return self.top_k * self._index_type.itemsize if self.top_k < self.chunk else 0

    @property
    def _index_type(self) -> torch.dtype:
        return torch.uint8 if self.chunk <= ONE_BYTE else torch.int16

    # ------------------------------------------------------------------ peaks

    def take_peaks(self, values: Tensor) -> Tensor:
        """Return the peaks of chunks [rows, chunk], uint8 [rows, peaks_bytes], and leave in
        `values` what they lack."""
        if not len(values):
            return torch.empty(0, self.peaks_bytes, dtype=torch.uint8, device=values.device)
        return torch.cat([self._take(rows) for rows in torch.split(values, ROWS_AT_ONCE)])

    def _take(self, values: Tensor) -> Tensor:
        basis = _basis(self.chunk, self.dtype, values.device)
        frequencies = values @ basis.T
        found = frequencies.abs().topk(self.top_k, dim=1, sorted=False)
        index = found.indices.sort(dim=1).values
        peaks = self._encode(frequencies.gather(1, index))
        indices = index.to(self._index_type).view(torch.uint8)[:, : self._index_bytes]
        encoded = torch.cat([peaks, indices], dim=1)
        values -= self.spread(encoded, torch.zeros_like(values)) @ basis
        return encoded

    def _encode(self, peaks: Tensor) -> Tensor:
        rows = len(peaks)
        match self.precision:
            case "model":
                return peaks.view(torch.uint8)
            case "bfloat16":
                return Bf16Codec().encode(peaks).view(rows, -1)
            case "int8":
                encoded = Int8Codec(block=self.top_k).encode(peaks)
                scales, codes = encoded[: SCALE_BYTES * rows], encoded[SCALE_BYTES * rows :]
                return torch.cat([scales.view(rows, -1), codes.view(rows, -1)], dim=1)

    def are_peaks(self, encoded: Tensor) -> bool:
        """Return whether a message [rows, peaks_bytes] from anybody can be decoded."""
        if not len(encoded):
            return True
        least, most = self._split(encoded)[1].aminmax()
        return 0 <= int(least) and int(most) < self.chunk

    def spread(self, encoded: Tensor, frequencies: Tensor) -> Tensor:
        """Add peaks to frequencies [rows, chunk], and return those."""
        if not len(encoded):
            return frequencies
        peaks, index = self._split(encoded)
        return frequencies.scatter_add_(1, index, self._decode(peaks))

    def _split(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoded values, and the indices."""
        border = self.peaks_bytes - self._index_bytes
        if border == self.peaks_bytes:
            index = torch.arange(self.chunk, device=encoded.device).expand(len(encoded), -1)
        else:
            index = _aligned(encoded[:, border:]).view(self._index_type).view(-1, self.top_k).long()
        return encoded[:, :border], index

    def _decode(self, encoded: Tensor) -> Tensor:
        out = torch.empty(len(encoded), self.top_k, dtype=self.dtype, device=encoded.device)
        match self.precision:
            case "model":
                return _aligned(encoded).view(self.dtype).view(-1, self.top_k)
            case "bfloat16":
                return Bf16Codec().decode(_aligned(encoded), out)
            case "int8":
                scales, codes = encoded[:, :SCALE_BYTES], encoded[:, SCALE_BYTES:]
                whole = torch.cat([scales.reshape(-1), codes.reshape(-1)])
                return Int8Codec(block=self.top_k).decode(whole, out)

    # ------------------------------------------------------------------ signs

    def signs_of(self, frequencies: Tensor) -> Tensor:
        """Return the signs of what has these frequencies [rows, chunk], on the host: uint8 [rows,
        signs_bytes]."""
        if not len(frequencies):
            return torch.empty(0, self.signs_bytes, dtype=torch.uint8)
        return torch.cat([self._signs(rows) for rows in torch.split(frequencies, ROWS_AT_ONCE)])

    def _signs(self, frequencies: Tensor) -> Tensor:
        values = frequencies @ _basis(self.chunk, self.dtype, frequencies.device)
        kind = frequencies.any(dim=1).to(torch.uint8)
        kind[~values.isfinite().all(dim=1)] = NOT_FINITE
        up = (values > 0) & (kind == MOVES).unsqueeze(1)
        bits = torch.from_numpy(np.packbits(up.numpy(), axis=1))
        return torch.cat([kind.unsqueeze(1), bits], dim=1)

    def place_signs(self, signs: Tensor, out: Tensor) -> None:
        """Write signs [rows, signs_bytes] into `out`, flat: 1, −1 and where nothing moves 0, or NaN
        where something is not finite."""
        for start in range(0, len(signs), ROWS_AT_ONCE):
            rows = signs[start : start + ROWS_AT_ONCE]
            where = slice(start * self.chunk, (start + len(rows)) * self.chunk)
            out[where] = self._values_of(rows).view(-1)[: len(out[where])]

    def _values_of(self, signs: Tensor) -> Tensor:
        kind, bits = signs[:, :1], signs[:, 1:]
        up = torch.from_numpy(np.unpackbits(bits.numpy(), axis=1))
        values = up.to(self.dtype).mul_(2).sub_(1)
        values *= kind == MOVES
        return values.masked_fill_(kind > MOVES, math.nan)


def _aligned(encoded: Tensor) -> Tensor:
    """Return bytes, flat, in memory where they can be viewed as any dtype."""
    return encoded.clone(memory_format=torch.contiguous_format).view(-1)


@lru_cache(maxsize=4)
def _basis(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the cosines, one frequency a row: their transpose is their inverse."""
    frequency, place = torch.arange(size).unsqueeze(1), torch.arange(size)
    turns = frequency * (2 * place + 1) % (4 * size)  # of a wave, in parts of it: exact
    basis = torch.cos(turns.double() * (math.pi / (2 * size))) * math.sqrt(2 / size)
    basis[0] = math.sqrt(1 / size)
    return basis.to(device, dtype)
