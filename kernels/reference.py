"""The kernels in eager torch: what each of them means, on any device.

The other implementations, C for the CPU and Triton for CUDA, have the same functions and agree
with these. All tensors are one-dimensional, contiguous and on one device; `swarmrt.kernels.codecs`
is the door at which that is checked, and what users of the codecs import. `fingerprint` is behind
`swarmrt.kernels.digest`.

int8: each block of `block` values is divided by its scale, absmax / 127, and rounded. Of a block
with anything in it that is not finite the scale is NaN, and so is every value decoded from it.
Blocks below SMALLEST_ABSMAX become zeros. (Blockwise absmax quantisation as in Dettmers et al.
2022, "8-bit Optimizers via Block-wise Quantization", with a linear code.)
"""

from __future__ import annotations

import torch

LEVELS = 127.0
# 127 times the smallest normal fp32 value. Above it neither scale nor reciprocal is subnormal, so
# hardware that flushes subnormals computes the same.
SMALLEST_ABSMAX = LEVELS * 2.0**-126

WORD_BYTES = 8
GAMMA = 0x9E3779B97F4A7C15
MIX_1, MIX_2, MIX_3 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xFF51AFD7ED558CCD
CHUNK_WORDS = 1 << 17  # 1 MiB, three times over: all the memory that a fingerprint takes


def encode_int8(
    values: torch.Tensor,
    scales: torch.Tensor,
    codes: torch.Tensor,
    block: int,
    key: int | None,
    residual: torch.Tensor | None,
) -> None:
    """Encode fp32 `values` (n) into fp32 `scales` (a block each) and int8 `codes` (n).

    Rounds to nearest, ties to even; or, with a 32-bit `key`, up with the probability of the
    fraction. With a `residual` (n), encodes values + residual and leaves there what was lost.
    """
    if residual is not None:
        values = residual.add_(values)
    rows = _rows(values, block)
    absmax = rows.abs().amax(1)
    usable = absmax.isfinite() & (absmax >= SMALLEST_ABSMAX)
    # Tensor by tensor: torch turns a division that has a number in it into a multiplication.
    levels = torch.full_like(absmax, LEVELS)
    exact = torch.where(usable[:, None], rows * (levels / absmax)[:, None], 0.0)
    if key is None:
        rounded = exact.round_()
    else:
        rounded = _round_stochastic(exact.clamp_(-LEVELS, LEVELS), key)
    codes.copy_(rounded.view(-1)[: len(codes)])
    scales.copy_(
        torch.where(usable, absmax / levels, torch.where(absmax.isfinite(), 0.0, torch.nan))
    )
    if residual is not None:
        decoded = torch.empty_like(residual)
        decode_int8(scales, codes, decoded, block)
        _keep_what_was_lost(residual, decoded)


def decode_int8(scales: torch.Tensor, codes: torch.Tensor, out: torch.Tensor, block: int) -> None:
    """Write codes times their block's scale into fp32 `out` (n)."""
    whole = len(codes) - len(codes) % block
    shape = (-1, block)
    torch.mul(
        codes[:whole].view(shape),
        scales[: whole // block, None],
        out=out[:whole].view(shape),
    )
    torch.mul(codes[whole:], scales[whole // block :], out=out[whole:])


def accumulate_int8(
    scales: torch.Tensor, codes: torch.Tensor, total: torch.Tensor, block: int
) -> None:
    """Add codes times their block's scale to fp32 `total` (n)."""
    decoded = torch.empty_like(total)
    decode_int8(scales, codes, decoded, block)
    total.add_(decoded)


def encode_bf16(values: torch.Tensor, halves: torch.Tensor, residual: torch.Tensor | None) -> None:
    """Round fp32 `values` (n) to nearest even into bfloat16 `halves` (n).

    With a `residual` (n), encodes values + residual and leaves there what was lost.
    """
    if residual is not None:
        values = residual.add_(values)
    halves.copy_(values)
    if residual is not None:
        _keep_what_was_lost(residual, halves.float())


def decode_bf16(halves: torch.Tensor, out: torch.Tensor) -> None:
    """Write bfloat16 `halves` (n) into fp32 `out` (n), exactly."""
    out.copy_(halves)


def accumulate_bf16(halves: torch.Tensor, total: torch.Tensor) -> None:
    """Add bfloat16 `halves` (n) to fp32 `total` (n)."""
    total.add_(halves)


def fingerprint(data: torch.Tensor, place: int = 0) -> tuple[int, int]:
    """Return both sums, modulo 2^64, of `swarmrt.kernels.digest` over the words of `data`, the
    first of which is the one at `place`.

    uint8, of a size that 8 divides, and at any address.
    """
    sums = torch.zeros(2, dtype=torch.int64, device=data.device)
    for start in range(0, len(data) // WORD_BYTES, CHUNK_WORDS):
        stop = start + CHUNK_WORDS
        words = data[WORD_BYTES * start : WORD_BYTES * stop].clone().view(torch.int64)
        first = place + start + 1
        places = torch.arange(first, first + len(words), device=data.device)
        words += places.mul_(_signed(GAMMA))
        _xor_shifted(words, 30).mul_(_signed(MIX_1))
        _xor_shifted(words, 27).mul_(_signed(MIX_2))
        sums[0] += _xor_shifted(words, 31).sum()
        sums[1] += _xor_shifted(words, 33).mul_(_signed(MIX_3)).sum()
    first, second = sums.tolist()
    return first % (1 << 64), second % (1 << 64)


def _signed(word: int) -> int:
    """The same 64 bits as an int64, whose products and sums wrap as those of unsigned words do."""
    return word - (word >> 63 << 64)


def _xor_shifted(words: torch.Tensor, by: int) -> torch.Tensor:
    """words ^= words >> by, of unsigned words: without the copies of the sign."""
    return words.bitwise_xor_((words >> by).bitwise_and_((1 << (64 - by)) - 1))


def _rows(values: torch.Tensor, block: int) -> torch.Tensor:
    """One block a row, the last one filled up with zeros."""
    if missing := -len(values) % block:
        values = torch.nn.functional.pad(values, (0, missing))
    return values.view(-1, block)


def _keep_what_was_lost(residual: torch.Tensor, decoded: torch.Tensor) -> None:
    """`residual` holds what should have been said. What is not finite leaves nothing behind: it has
    been seen, and would otherwise stay forever."""
    residual.sub_(decoded)
    residual.masked_fill_(~residual.isfinite(), 0.0)


def _round_stochastic(exact: torch.Tensor, key: int) -> torch.Tensor:
    down = exact.floor()
    return down.add_(_draws(exact.numel(), key, exact.device).view_as(exact) < exact - down)


def _draws(count: int, key: int, device: torch.device) -> torch.Tensor:
    """`count` multiples of 2^-24 in [0, 1): a hash of the key and the place, so that every
    implementation can draw the same. They repeat after 2^32 places."""
    places = torch.arange(count, device=device) & 0xFFFFFFFF
    hashed = _mix((_mix(places) + key) & 0xFFFFFFFF)
    return (hashed >> 8).float().mul_(2.0**-24)


def _mix(words: torch.Tensor) -> torch.Tensor:
    """32-bit words, in int64, hashed by the finalizer of MurmurHash3 (Appleby, public domain)."""
    words = ((words ^ (words >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    words = ((words ^ (words >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return words ^ (words >> 16)
