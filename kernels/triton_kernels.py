"""The kernels in Triton, for tensors on CUDA: the functions of `swarmrt.kernels.reference`.

One program a block, which it holds in registers, so that values are read once; blocks too large
for that are left to eager torch. bfloat16 is torch's own: a cast is one kernel there too. Without
fused multiply-adds, results are the reference's to the bit.

Triton may be missing, so only `swarmrt.kernels.dispatch` imports this. With TRITON_INTERPRET=1 set
before, the functions run on CPU tensors, by Triton's interpreter.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from swarmrt.kernels import reference
from swarmrt.kernels.reference import accumulate_bf16, decode_bf16, encode_bf16

__all__ = [
    "accumulate_bf16",
    "accumulate_int8",
    "decode_bf16",
    "decode_int8",
    "encode_bf16",
    "encode_int8",
    "fingerprint",
]

LEVELS = tl.constexpr(reference.LEVELS)
SMALLEST_ABSMAX = tl.constexpr(reference.SMALLEST_ABSMAX)
LARGEST = tl.constexpr(3.4028234663852886e38)
ROUND_MAGIC = tl.constexpr(1.5 * 2.0**23)  # x + this - this is x to nearest even, |x| < 2^22

LARGEST_BLOCK = 1 << 14  # at most 32 values a thread

GAMMA = tl.constexpr(reference.GAMMA)
MIX_1, MIX_2 = tl.constexpr(reference.MIX_1), tl.constexpr(reference.MIX_2)
MIX_3 = tl.constexpr(reference.MIX_3)
FINGERPRINT_WORDS = 1 << 12  # a program


def encode_int8(
    values: torch.Tensor,
    scales: torch.Tensor,
    codes: torch.Tensor,
    block: int,
    key: int | None,
    residual: torch.Tensor | None,
) -> None:
    if block > LARGEST_BLOCK:
        return reference.encode_int8(values, scales, codes, block, key, residual)
    _launch(
        _encode,
        (values, values if residual is None else residual, scales, codes),
        block,
        key=_signed(key or 0),
        FEEDBACK=residual is not None,
        STOCHASTIC=key is not None,
    )


def decode_int8(scales: torch.Tensor, codes: torch.Tensor, out: torch.Tensor, block: int) -> None:
    if block > LARGEST_BLOCK:
        return reference.decode_int8(scales, codes, out, block)
    _launch(_decode, (codes, scales, out), block, ADD=False)


def accumulate_int8(
    scales: torch.Tensor, codes: torch.Tensor, total: torch.Tensor, block: int
) -> None:
    if block > LARGEST_BLOCK:
        return reference.accumulate_int8(scales, codes, total, block)
    _launch(_decode, (codes, scales, total), block, ADD=True)


def fingerprint(data: torch.Tensor, place: int = 0) -> tuple[int, int]:
    if not len(data) or data.data_ptr() % reference.WORD_BYTES:
        return reference.fingerprint(data, place)
    words = data.view(torch.int64)
    programs = triton.cdiv(len(words), FINGERPRINT_WORDS)
    sums = torch.empty((programs, 2), dtype=torch.int64, device=data.device)
    with torch.cuda.device_of(data):  # type: ignore[no-untyped-call]
        _fingerprint[(programs,)](
            words, sums, len(words), place, WIDTH=FINGERPRINT_WORDS, num_warps=8
        )
    first, second = sums.sum(0).tolist()
    return first % (1 << 64), second % (1 << 64)


def _launch(kernel: Any, tensors: tuple[torch.Tensor, ...], block: int, **arguments: Any) -> None:
    """A program for each block of `tensors[0]`, which has a value for each place."""
    count = len(tensors[0])
    if not count:
        return
    width = max(16, triton.next_power_of_2(block))
    with torch.cuda.device_of(tensors[0]):  # type: ignore[no-untyped-call]
        kernel[(triton.cdiv(count, block),)](
            *tensors,
            count,
            block,
            WIDTH=width,
            num_warps=4 if width <= 4096 else 16,
            enable_fp_fusion=False,
            **arguments,
        )


def _signed(key: int) -> int:
    """The same 32 bits, as the int32 that a kernel takes."""
    return key - (key >> 31 << 32)


@triton.jit
def _mix(x):
    """The finalizer of MurmurHash3 (Appleby, public domain), of uint32."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


@triton.jit(do_not_specialize=["key"])  # not compiled anew for a key that is 1 or 16
def _encode(
    values,
    residual,
    scales,
    codes,
    count,
    block,
    key,
    WIDTH: tl.constexpr,
    FEEDBACK: tl.constexpr,
    STOCHASTIC: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    at = row * block + column
    mask = (column < block) & (at < count)
    x = tl.load(values + at, mask, other=0.0)
    if FEEDBACK:
        x += tl.load(residual + at, mask, other=0.0)
    # A maximum passes over NaN on some hardware, so what is not finite is counted.
    finite = tl.sum((tl.abs(x) <= LARGEST).to(tl.int32), 0) == WIDTH
    absmax = tl.max(tl.abs(x), 0)
    usable = finite & (absmax >= SMALLEST_ABSMAX)
    divisor = tl.where(usable, absmax, 1.0)
    inverse = tl.div_rn(LEVELS, divisor)
    scale = tl.div_rn(divisor, LEVELS)
    scale = tl.where(usable, scale, tl.where(finite, 0.0, float("nan")))
    exact = tl.where(usable, x * inverse, 0.0)
    nearest = (exact + ROUND_MAGIC) - ROUND_MAGIC
    if STOCHASTIC:
        exact = tl.minimum(tl.maximum(exact, -LEVELS), LEVELS)
        nearest = (exact + ROUND_MAGIC) - ROUND_MAGIC
        down = tl.where(nearest > exact, nearest - 1.0, nearest)
        hashed = _mix(_mix(at.to(tl.uint32)) + key.to(tl.uint32))
        drawn = (hashed >> 8).to(tl.int32).to(tl.float32) * (2.0**-24)
        nearest = tl.where(drawn < exact - down, down + 1.0, down)
    tl.store(codes + at, nearest.to(tl.int32).to(tl.int8), mask)
    tl.store(scales + row, scale)
    if FEEDBACK:
        lost = x - nearest * scale
        tl.store(residual + at, tl.where(tl.abs(lost) <= LARGEST, lost, 0.0), mask)


@triton.jit
def _decode(codes, scales, out, count, block, WIDTH: tl.constexpr, ADD: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    at = row * block + column
    mask = (column < block) & (at < count)
    value = tl.load(codes + at, mask, other=0).to(tl.float32) * tl.load(scales + row)
    if ADD:
        value += tl.load(out + at, mask, other=0.0)
    tl.store(out + at, value, mask)


@triton.jit
def _fingerprint(words, sums, count, place, WIDTH: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    at = program * WIDTH + tl.arange(0, WIDTH)
    mask = at < count
    x = tl.load(words + at, mask, other=0).to(tl.uint64)
    x += (at + place + 1).to(tl.uint64) * GAMMA
    x = (x ^ (x >> 30)) * MIX_1
    x = (x ^ (x >> 27)) * MIX_2
    x = x ^ (x >> 31)
    y = (x ^ (x >> 33)) * MIX_3
    nothing = tl.zeros([WIDTH], tl.int64)
    tl.store(sums + 2 * program, tl.sum(tl.where(mask, x.to(tl.int64), nothing), 0))
    tl.store(sums + 2 * program + 1, tl.sum(tl.where(mask, y.to(tl.int64), nothing), 0))
