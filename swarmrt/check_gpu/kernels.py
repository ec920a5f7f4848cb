"""Kernels against what they mean, in eager torch on the CPU: to the bit, and within half a step.

On a GPU these are the Triton kernels, compiled; without one the same by Triton's interpreter.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager

import numpy
import torch

from swarmrt.check_gpu.job import Job
from swarmrt.kernels import reference
from swarmrt.kernels.codecs import Int8Codec
from swarmrt.kernels.dispatch import Implementation

LARGEST = 3.4028234663852886e38
SPECIAL = (0.0, -0.0, 1e-45, -1e-40, 1.4e-36, 1.6e-36, LARGEST, -LARGEST)
BAD = (math.nan, math.inf, -math.inf)
# A count and a block. On a GPU each kind of either is compiled anew, which takes half a second;
# interpreted, a program a block is slow.
GPU_SIZES = (
    *((count, 256) for count in (1, 15, 257, 4096, 100_003, 3_000_001)),
    *((count, block) for count in (257, 100_003) for block in (7, 1 << 14, 1 << 15)),
    (257, 1),
)
CPU_SIZES = tuple((count, block) for count in (1, 257, 600) for block in (256, 300))
KEYS = (None, 1, 2**32 - 1)
ROUNDING = 1 + 2.0**-15  # of the scale, as `Int8Codec` says


def check(job: Job) -> None:
    kernels = _kernels(job)
    number = 0
    with _quietly():
        number += _compare_all(job, kernels)
        number += _half_a_step(job, kernels)
        number += _fingerprints(job, kernels)
    job.book.figure("comparisons", number)
    by = "compiled" if job.is_gpu else "by Triton's interpreter"
    job.book.say(f"{number} comparisons, {by}")


def _kernels(job: Job) -> Implementation:
    if not job.is_gpu:
        os.environ["TRITON_INTERPRET"] = "1"  # has to be set before triton is imported
    from swarmrt.kernels import triton_kernels

    return triton_kernels


def _quietly() -> AbstractContextManager[object]:
    """The interpreter computes with numpy, which warns of infinity and the like."""
    return numpy.errstate(all="ignore")


# ---------------------------------------------------------------------- to the bit


def _compare_all(job: Job, kernels: Implementation) -> int:
    number = 0
    for count, block in GPU_SIZES if job.is_gpu else CPU_SIZES:
        for (kind, values), key, feedback in itertools.product(_values(count), KEYS, (False, True)):
            left = values.flip(0).nan_to_num(1.0, 1.0, 1.0) / 3 if feedback else None
            expected = _run(reference, values, block, key, left, "cpu")
            found = _run(kernels, values, block, key, left, job.device)
            for name, tensor in expected.items():
                number += 1
                job.book.expect(
                    _same_bits(found[name], tensor),
                    f"{name} of {count} {kind} values differs (block {block}, key {key}, "
                    f"feedback {feedback})",
                )
            if len(job.book.failures) > 20:
                return number  # it is clear by now
    return number


def _values(count: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Values of every kind, and at an odd address."""
    generator = torch.Generator().manual_seed(count)
    plain = torch.randn(count + 1, generator=generator)[1:]
    yield "plain", plain
    yield "small", plain * 1e-37
    rare = plain * 2.0 ** torch.randint(-140, 120, (count,), generator=generator)
    for place, value in enumerate((*SPECIAL, *BAD)):
        rare[place * 37 % count] = value
    yield "rare", rare


def _run(
    kernels: Implementation,
    values: torch.Tensor,
    block: int,
    key: int | None,
    residual: torch.Tensor | None,
    device: str,
) -> dict[str, torch.Tensor]:
    """Return what every function makes of the values, on the CPU."""
    count = len(values)
    there = values.to(device)
    scales = torch.empty(-(-count // block), device=device)
    codes = torch.empty(count, dtype=torch.int8, device=device)
    halves = torch.empty(count, dtype=torch.bfloat16, device=device)
    left = [None if residual is None else residual.to(device, copy=True) for _ in range(2)]
    out, total, wide, sums = (torch.full((count,), 0.1, device=device) for _ in range(4))
    kernels.encode_int8(there, scales, codes, block, key, left[0])
    kernels.decode_int8(scales, codes, out, block)
    kernels.accumulate_int8(scales, codes, total, block)
    kernels.encode_bf16(there, halves, left[1])
    kernels.decode_bf16(halves, wide)
    kernels.accumulate_bf16(halves, sums)
    made = {"int8 scales": scales, "int8 codes": codes, "int8 decoded": out, "int8 sums": total}
    made |= {"bf16 halves": halves, "bf16 decoded": wide, "bf16 sums": sums}
    made |= {f"residual {i}": each for i, each in enumerate(left) if each is not None}
    return {name: tensor.cpu() for name, tensor in made.items()}


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal, -0 told from 0, every NaN the same."""
    one, other = (t.float().nan_to_num(7.5e37, math.inf, -math.inf) for t in (one, other))
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


# ---------------------------------------------------------------------- half a step


def _half_a_step(job: Job, kernels: Implementation) -> int:
    """A value decodes to within half its block's scale, or within one when rounded by chance."""
    count, block = (1_000_003 if job.is_gpu else 1003), 256
    values = torch.randn(count, generator=torch.Generator().manual_seed(7)).to(job.device)
    scales = torch.empty(-(-count // block), device=job.device)
    codes = torch.empty(count, dtype=torch.int8, device=job.device)
    out = torch.empty_like(values)
    for key, steps in ((None, 0.5), (9, 1.0)):
        kernels.encode_int8(values, scales, codes, block, key, None)
        kernels.decode_int8(scales, codes, out, block)
        scale = scales.repeat_interleave(block)[:count]
        worst = float(((out - values).abs() / scale).max())
        kind = "nearest" if key is None else "stochastic"
        job.book.figure(f"worst_error_in_steps_{kind}", worst)
        job.book.expect(worst <= steps * ROUNDING, f"int8 {kind} is off by {worst} steps")
    codec = Int8Codec()
    if job.is_gpu:  # by the door that everybody uses, where codes begin at odd addresses
        made = []
        for device in ("cpu", job.device):
            encoded = codec.encode(values.to(device), seed=4)
            total = codec.decode_accumulate(encoded, torch.ones(count, device=device))
            made.append((encoded.cpu(), total.cpu()))
        same = all(torch.equal(here, there) for here, there in zip(*made, strict=True))
        job.book.expect(same, "Int8Codec differs between CPU and CUDA")
    return 3


# ---------------------------------------------------------------------- digests


def _fingerprints(job: Job, kernels: Implementation) -> int:
    words = 1 << 12
    counts = [0, 1, 7, words - 1, words, words + 1, *([3_000_001] if job.is_gpu else [])]
    generator = torch.Generator().manual_seed(6)
    number = 0
    for count, start in itertools.product(counts, (0, 3, 8)):
        data = torch.randint(256, (8 * count + start,), generator=generator).byte()
        expected = reference.fingerprint(data[start:])
        found = kernels.fingerprint(data.to(job.device)[start:])
        number += 1
        job.book.expect(found == expected, f"the fingerprint of {count} words at {start} differs")
    if job.is_gpu:
        number += _digests(job)
    return number


def _digests(job: Job) -> int:
    from swarmrt.kernels.digest import digest

    kinds = (torch.float32, torch.float64, torch.bfloat16, torch.int64)
    for dtype, count in itertools.product(kinds, (0, 1, 1001, 100_003)):
        values = torch.randn(count, generator=torch.Generator().manual_seed(count)).to(dtype)
        same = digest(values.to(job.device)) == digest(values)
        job.book.expect(same, f"the digest of {count} values of {dtype} differs")
    return len(kinds) * 4
