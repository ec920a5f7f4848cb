"""The payloads of a round: slices and sums as values, encoded by a codec, or with decoupled
momentum the peaks of each chunk, and the signs of what they add up to.

Each is one flat tensor, whose length follows from how many values it is of. So nobody has memory
for more than its round is about, whatever others send.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.kernels.codecs import CODECS, Codec
from swarmrt.kernels.spectrum import Spectrum
from swarmrt.model.decoupled import spectrum_of


class Payload(ABC):
    """A kind of payload. What computes may run on any thread."""

    unit = 1  # values between which no cut is made
    is_encoded = True  # it is no values as they are

    def __init__(self, dtype: torch.dtype, sent: torch.dtype) -> None:
        """The values have one dtype here, and what is sent of them has another."""
        self.dtype, self.sent = dtype, sent

    @abstractmethod
    def slice_length(self, count: int) -> int:
        """Return how long a slice of so many values is on its way."""

    def sum_length(self, count: int) -> int:
        """Return how long a sum of so many values is on its way."""
        return self.slice_length(count)

    def is_sound(self, piece: Tensor) -> bool:
        """Return whether a slice of the right length can be decoded."""
        return True

    @abstractmethod
    def encode(self, piece: Tensor) -> Tensor:
        """Return a slice of what this peer gives, as it is sent."""

    @abstractmethod
    def add_up(
        self, slices: Sequence[Tensor | None], mine: Tensor, total: Tensor, divisor: int
    ) -> Tensor | None:
        """Write the mean of slices that have come, and of this peer's own where one is None, to
        `total`. Return it as it is sent; None if it is sent as it is."""

    @abstractmethod
    def is_finite(self, piece: Tensor | None, mine: Tensor) -> bool:
        """Return whether a slice is."""

    @abstractmethod
    def place(self, summed: Tensor, total: Tensor) -> None:
        """Write a sum that has come to `total`."""


class Plain(Payload):
    is_encoded = False

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype, dtype)

    def slice_length(self, count: int) -> int:
        return count

    def encode(self, piece: Tensor) -> Tensor:
        return piece.cpu()

    def add_up(
        self, slices: Sequence[Tensor | None], mine: Tensor, total: Tensor, divisor: int
    ) -> None:
        for place, piece in enumerate(slices):
            values = mine if piece is None else piece
            if place:
                total.add_(values.cpu().view_as(total))
            else:
                total.copy_(values.view_as(total))
        total.div_(divisor)

    def is_finite(self, piece: Tensor | None, mine: Tensor) -> bool:
        return bool((mine if piece is None else piece).isfinite().all())

    def place(self, summed: Tensor, total: Tensor) -> None:
        total.copy_(summed.view_as(total))


class Encoded(Payload):
    """The owner takes the sum as everyone else does, from the encoded bytes."""

    def __init__(self, dtype: torch.dtype, codec: Codec) -> None:
        super().__init__(dtype, torch.uint8)
        self._codec = codec

    def slice_length(self, count: int) -> int:
        return self._codec.encoded_bytes(count)

    def encode(self, piece: Tensor) -> Tensor:
        return self._codec.encode(piece.cpu())

    def add_up(
        self, slices: Sequence[Tensor | None], mine: Tensor, total: Tensor, divisor: int
    ) -> Tensor:
        for place, piece in enumerate(slices):
            if piece is None:
                own = mine.cpu().view_as(total)
                total.add_(own) if place else total.copy_(own)
            else:
                add = self._codec.decode_accumulate if place else self._codec.decode
                add(piece, total)
        summed = self._codec.encode(total.div_(divisor))
        self._codec.decode(summed, total)
        return summed

    def is_finite(self, piece: Tensor | None, mine: Tensor) -> bool:
        if piece is None:
            return bool(mine.isfinite().all())
        return bool(
            self._codec.decode(piece, torch.empty(mine.shape, dtype=mine.dtype)).isfinite().all()
        )

    def place(self, summed: Tensor, total: Tensor) -> None:
        self._codec.decode(summed, total)


class PeaksAndSigns(Payload):
    """The payload of a stage that encodes what it gives itself, in rows, one for each chunk."""

    def __init__(self, spectrum: Spectrum) -> None:
        super().__init__(spectrum.dtype, torch.uint8)
        self._spectrum, self.unit = spectrum, spectrum.chunk

    def slice_length(self, count: int) -> int:
        return self._spectrum.rows(count) * self._spectrum.peaks_bytes

    def sum_length(self, count: int) -> int:
        return self._spectrum.rows(count) * self._spectrum.signs_bytes

    def is_sound(self, piece: Tensor) -> bool:
        return self._spectrum.are_peaks(self._in_rows(piece))

    def _in_rows(self, piece: Tensor) -> Tensor:
        return piece.view(-1, self._spectrum.peaks_bytes)

    def encode(self, piece: Tensor) -> Tensor:
        return piece.reshape(-1)

    def add_up(
        self, slices: Sequence[Tensor | None], mine: Tensor, total: Tensor, divisor: int
    ) -> Tensor:
        """Signs are the same whatever the sum is divided by."""
        rows = self._spectrum.rows(len(total))
        frequencies = torch.zeros(rows, self.unit, dtype=self.dtype)
        for piece in slices:
            self._spectrum.spread(mine if piece is None else self._in_rows(piece), frequencies)
        signs = self._spectrum.signs_of(frequencies)
        self._spectrum.place_signs(signs, total)
        return signs.view(-1)

    def is_finite(self, piece: Tensor | None, mine: Tensor) -> bool:
        rows = mine if piece is None else self._in_rows(piece)
        frequencies = torch.zeros(len(rows), self.unit, dtype=self.dtype)
        return bool(self._spectrum.spread(rows, frequencies).isfinite().all())

    def place(self, summed: Tensor, total: Tensor) -> None:
        self._spectrum.place_signs(summed.view(-1, self._spectrum.signs_bytes), total)


def payload_of(config: RunConfig) -> Payload:
    """Return what replicas of a stage send each other."""
    dtype = torch.promote_types(getattr(torch, config.model.dtype), torch.float32)
    if config.averaging.is_decoupled:
        return PeaksAndSigns(spectrum_of(config))
    codec = CODECS[config.replicas_precision]
    return Plain(dtype) if codec is None else Encoded(dtype, codec)
