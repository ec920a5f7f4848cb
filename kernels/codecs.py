"""fp32 values as fewer bytes: blockwise int8, a quarter, and bfloat16, half.

An encoded tensor is one uint8 tensor that can be sent as it is. All methods take contiguous tensors
of any shape on one device, write in place into what they are given, and raise ValueError for
tensors they would have to copy or that do not fit together. What is not finite never decodes to
something finite.

Error feedback (Seide et al. 2014, "1-bit stochastic gradient descent"): keep a `residual` of zeros
for each tensor that is encoded again and again, and hand it in. What one encoding loses is added
to the next, so that the sum of what was decoded stays within one encoding's error of the sum
of what was encoded. Where something is not finite the residual becomes 0.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from swarmrt.kernels.dispatch import Implementation, implementation

SCALE_BYTES = 4
HALF_BYTES = 2
MAX_BLOCK = 1 << 20


class Codec(Protocol):
    """What can be done with any codec."""

    def encoded_bytes(self, count: int) -> int:
        """The size of `count` values when encoded."""

    def encode(
        self,
        values: torch.Tensor,
        *,
        residual: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Encode fp32 `values` into a uint8 tensor of `encoded_bytes` (new, or `out`).

        With a `residual`, fp32 of the same shape: encode values + residual, and leave in it what
        was lost.
        """

    def decode(self, encoded: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Write the values into fp32 `out`, whose shape says how many they are; returns it."""

    def decode_accumulate(self, encoded: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        """Add the values to fp32 `total`: what a reduce does; returns it."""


@dataclass(frozen=True)
class Int8Codec:
    """An int8 code a value, an fp32 scale (absmax / 127) a block of `block` values, scales first.

    A value decodes to within half its block's scale of what it was (give or take 2^-15 of the
    scale, for rounding), or within one scale when rounded stochastically. A block with anything
    in it that is not finite decodes to NaN throughout; one whose absmax is below 1.5e-36, to
    zeros; and the largest of all fp32 values to infinity. `block` is at most 2^20.
    """

    block: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.block <= MAX_BLOCK:
            raise ValueError(f"a block has 1 to {MAX_BLOCK} values, not {self.block}")

    def encoded_bytes(self, count: int) -> int:
        return SCALE_BYTES * _blocks(count, self.block) + count

    def encode(
        self,
        values: torch.Tensor,
        *,
        residual: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
        seed: int | None = None,
    ) -> torch.Tensor:
        """As `Codec.encode`, to the nearest code, ties to even.

        With a `seed`: to one of the two nearest, drawn such that the mean is the value. The draws
        are a function of the seed and a value's place: take another seed for each encoding.
        """
        encoded = _encoded(values, self.encoded_bytes(values.numel()), out)
        flat, scales, codes, kernels = self._parts(encoded, values, "values")
        key = None if seed is None else _key(seed)
        left = None if residual is None else _beside(residual, values, "residual")
        kernels.encode_int8(flat, scales, codes, self.block, key, left)
        return encoded

    def decode(self, encoded: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """As `Codec.decode`."""
        flat, scales, codes, kernels = self._parts(encoded, out, "out")
        kernels.decode_int8(scales, codes, flat, self.block)
        return out

    def decode_accumulate(self, encoded: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        """As `Codec.decode_accumulate`."""
        flat, scales, codes, kernels = self._parts(encoded, total, "total")
        kernels.accumulate_int8(scales, codes, flat, self.block)
        return total

    def _parts(
        self, encoded: torch.Tensor, values: torch.Tensor, name: str
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Implementation]:
        """The values, scales and codes, all flat, and the implementation for them."""
        flat = _flat(values, name)
        _check_encoded(encoded, self.encoded_bytes(len(flat)), SCALE_BYTES, flat)
        border = SCALE_BYTES * _blocks(len(flat), self.block)
        scales, codes = encoded[:border].view(torch.float32), encoded[border:].view(torch.int8)
        return flat, scales, codes, implementation(flat.device)


@dataclass(frozen=True)
class Bf16Codec:
    """The upper half of each value, rounded to nearest even: 8 bits of precision, fp32's range."""

    def encoded_bytes(self, count: int) -> int:
        return HALF_BYTES * count

    def encode(
        self,
        values: torch.Tensor,
        *,
        residual: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As `Codec.encode`."""
        encoded = _encoded(values, self.encoded_bytes(values.numel()), out)
        flat, halves, kernels = self._parts(encoded, values, "values")
        left = None if residual is None else _beside(residual, values, "residual")
        kernels.encode_bf16(flat, halves, left)
        return encoded

    def decode(self, encoded: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """As `Codec.decode`."""
        flat, halves, kernels = self._parts(encoded, out, "out")
        kernels.decode_bf16(halves, flat)
        return out

    def decode_accumulate(self, encoded: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        """As `Codec.decode_accumulate`."""
        flat, halves, kernels = self._parts(encoded, total, "total")
        kernels.accumulate_bf16(halves, flat)
        return total

    def _parts(
        self, encoded: torch.Tensor, values: torch.Tensor, name: str
    ) -> tuple[torch.Tensor, torch.Tensor, Implementation]:
        """The values and their halves, both flat, and the implementation for them."""
        flat = _flat(values, name)
        _check_encoded(encoded, self.encoded_bytes(len(flat)), HALF_BYTES, flat)
        return flat, encoded.view(torch.bfloat16), implementation(flat.device)


def _blocks(count: int, block: int) -> int:
    return -(-count // block)


def _key(seed: int) -> int:
    """32 bits that seeds near each other do not share."""
    return int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=4).digest(), "little")


def _encoded(values: torch.Tensor, size: int, out: torch.Tensor | None) -> torch.Tensor:
    if out is not None:
        return out
    return torch.empty(size, dtype=torch.uint8, device=values.device)


def _flat(values: torch.Tensor, name: str) -> torch.Tensor:
    if values.dtype != torch.float32:
        raise ValueError(f"{name} must be float32, not {str(values.dtype).removeprefix('torch.')}")
    if not values.is_contiguous():
        raise ValueError(f"{name} must be contiguous")
    return values.detach().view(-1)


def _beside(other: torch.Tensor, values: torch.Tensor, name: str) -> torch.Tensor:
    if other.shape != values.shape or other.device != values.device:
        raise ValueError(
            f"{name} must be like the values, {_where(values)}, but is {_where(other)}"
        )
    return _flat(other, name)


def _where(tensor: torch.Tensor) -> str:
    return f"of shape {tuple(tensor.shape)} on {tensor.device}"


def _check_encoded(encoded: torch.Tensor, size: int, alignment: int, flat: torch.Tensor) -> None:
    if encoded.dtype != torch.uint8 or encoded.dim() != 1 or not encoded.is_contiguous():
        raise ValueError("an encoded tensor must be uint8, contiguous, of one dimension")
    if len(encoded) != size:
        raise ValueError(f"{len(flat)} values are {size} bytes when encoded, not {len(encoded)}")
    if encoded.device != flat.device:
        raise ValueError(
            f"the encoded tensor is on {encoded.device}, its values are on {flat.device}"
        )
    if encoded.data_ptr() % alignment:
        raise ValueError(f"an encoded tensor must begin at a multiple of {alignment} bytes")


Precision = Literal["model", "bfloat16", "int8"]  # of what goes over the wire
CODECS: dict[Precision, Codec | None] = {
    "model": None,
    "bfloat16": Bf16Codec(),
    "int8": Int8Codec(),
}


def wire_bytes(precision: Precision, count: int, item_bytes: int) -> int:
    """Return the size of so many values on their way, each of which has `item_bytes` here."""
    codec = CODECS[precision]
    return count * item_bytes if codec is None else codec.encoded_bytes(count)
