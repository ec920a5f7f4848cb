"""What the tests of the kernels share: tensors of every kind, and what an implementation makes of
them."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

from swarmrt.kernels import compiled
from swarmrt.kernels.dispatch import Implementation

NATIVE = Path(__file__).parents[2] / "kernels" / "native"
LARGEST = 3.4028234663852886e38

sizes = st.sampled_from([0, 1, 2, 15, 255, 256, 257, 511, 1000, 4097])
blocks = st.sampled_from([1, 2, 7, 64, 256, 300])
special = st.sampled_from(
    [0.0, -0.0, 1e-45, -1e-40, 1.1754944e-38, 1.4e-36, 1.6e-36, 1.0, -127.0, LARGEST, -LARGEST]
)
bad = st.sampled_from([math.nan, -math.nan, math.inf, -math.inf])


@st.composite
def tensors(draw: st.DrawFn, *, finite: bool = False, most: float = LARGEST) -> torch.Tensor:
    """Sizes that blocks do not divide; magnitudes from subnormal to the largest; rare values."""
    count = draw(sizes)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    values = torch.randn(count, generator=generator)
    if draw(st.booleans()):  # each block with a magnitude of its own
        values *= 2.0 ** torch.randint(-140, 120, (count,), generator=generator)
    values *= 10.0 ** draw(st.sampled_from([0, 0, 0, -44, -37, -30, 5]))
    rare = special if finite else special | bad
    for place, value in draw(st.lists(st.tuples(st.integers(0, 5000), rare), max_size=6)):
        if count:
            values[place % count] = value
    return values.nan_to_num(0, LARGEST, -LARGEST).clamp(-most, most) if finite else values


def by_block(values: torch.Tensor, block: int) -> torch.Tensor:
    return torch.nn.functional.pad(values, (0, -len(values) % block)).view(-1, block)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal, -0 told from 0, every NaN the same."""
    one, other = one.float().nan_to_num(7.5e37), other.float().nan_to_num(7.5e37)
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


def run_all(
    kernels: Implementation,
    values: torch.Tensor,
    block: int,
    key: int | None,
    residual: torch.Tensor | None,
) -> dict[str, torch.Tensor]:
    """What every function of an implementation makes of the values."""
    count = len(values)
    scales, codes = torch.empty(-(-count // block)), torch.empty(count, dtype=torch.int8)
    halves = torch.empty(count, dtype=torch.bfloat16)
    left = [None if residual is None else residual.clone() for _ in range(2)]
    out, total, wide, sums = (torch.full((count,), 0.1) for _ in range(4))
    kernels.encode_int8(values, scales, codes, block, key, left[0])
    kernels.decode_int8(scales, codes, out, block)
    kernels.accumulate_int8(scales, codes, total, block)
    kernels.encode_bf16(values, halves, left[1])
    kernels.decode_bf16(halves, wide)
    kernels.accumulate_bf16(halves, sums)
    made = {"scales": scales, "codes": codes, "out": out, "total": total}
    made |= {"halves": halves, "wide": wide, "sums": sums}
    made |= {f"residual {i}": each for i, each in enumerate(left) if each is not None}
    return made


needs_native = pytest.mark.skipif(
    compiled.problem() is not None, reason=compiled.problem() or "built"
)


def native_library(simd: str, folder: Path) -> ctypes.CDLL:
    """The native library, with SIMD_AT_MOST this."""
    if simd == "AVX512":
        return compiled._library()
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    path = folder / f"{simd}.so"
    flags = ["-O3", "-std=c11", "-ffp-contract=off", "-fPIC", "-shared", f"-DSIMD_AT_MOST={simd}"]
    sources = [str(source) for source in sorted(NATIVE.glob("*.c"))]
    subprocess.run([compiler, *flags, *sources, "-o", str(path)], check=True)
    return compiled.load(path)
