"""The codecs in Triton: by its interpreter, which needs no GPU; compiled for one; and on one."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from swarmrt.kernels import dispatch
from swarmrt.kernels.codecs import Int8Codec
from swarmrt.kernels.digest import digest
from tests.kernels.cases import same_bits

ROOT = Path(__file__).parents[2]
CHECKS = [
    "agrees_with_torch_at_every_size",
    "agrees_with_torch_on_every_kind_of_value",
    "agrees_with_torch_on_fingerprints",
]

triton = pytest.importorskip("triton", reason="triton is not installed: it is for Linux on x86-64")


@pytest.mark.parametrize("check", CHECKS)
def test_triton_interpreted(check: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.triton_interpreted", check],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="TRITON_INTERPRET is set")
@pytest.mark.parametrize("width", [16, 256, 1 << 14])
@pytest.mark.parametrize("flag", [False, True])
def test_kernels_compile_for_cuda_and_fuse_nothing(
    width: int, flag: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton compiles also where there is no GPU. A fused multiply-add would round otherwise."""
    from swarmrt.kernels import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    sizes = {"count": "i32", "block": "i32"}
    encode = {"values": "*fp32", "residual": "*fp32", "scales": "*fp32", "codes": "*i8"}
    decode = {"codes": "*i8", "scales": "*fp32", "out": "*fp32"}
    for other in (False, True):
        constants: dict[str, Any] = {"WIDTH": width, "FEEDBACK": flag, "STOCHASTIC": other}
        ptx = ptx_of(triton_kernels._encode, encode | sizes | {"key": "i32"}, constants)
        assert "div.rn.f32" in ptx and "fma." not in ptx
    ptx = ptx_of(triton_kernels._decode, decode | sizes, {"WIDTH": width, "ADD": flag})
    assert "mul.rn.f32" in ptx and "fma." not in ptx


@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="TRITON_INTERPRET is set")
@pytest.mark.parametrize("capability", [75, 86, 89, 90, 100, 120])
def test_kernels_assemble_for_cards_of_all_ages(
    capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turing to Blackwell. None of them may flush what is subnormal, nor approximate."""
    from swarmrt.kernels import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    sizes = {"count": "i32", "block": "i32"}
    encode = {"values": "*fp32", "residual": "*fp32", "scales": "*fp32", "codes": "*i8"}
    decode = {"codes": "*i8", "scales": "*fp32", "out": "*fp32"}
    flags = {"WIDTH": 256, "FEEDBACK": True, "STOCHASTIC": True}
    sums, words = {"words": "*i64", "sums": "*i64"}, {"WIDTH": triton_kernels.FINGERPRINT_WORDS}
    for kernel, signature, constants in (
        (triton_kernels._encode, encode | sizes | {"key": "i32"}, flags),
        (triton_kernels._decode, decode | sizes, {"WIDTH": 256, "ADD": True}),
        (triton_kernels._decode, decode | {"count": "i32"}, {"WIDTH": 16, "ADD": True, "block": 1}),
        (triton_kernels._fingerprint, sums | {"count": "i64", "place": "i64"}, words),
    ):
        compiled = compile_for(kernel, signature, constants, capability)
        assert compiled.asm["cubin"] and ".ftz" not in (ptx := str(compiled.asm["ptx"]))
        assert "approx" not in ptx


@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="TRITON_INTERPRET is set")
def test_the_fingerprint_compiles_for_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from swarmrt.kernels import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    signature = {"words": "*i64", "sums": "*i64", "count": "i32", "place": "i64"}
    constants = {"WIDTH": triton_kernels.FINGERPRINT_WORDS}
    ptx = ptx_of(triton_kernels._fingerprint, signature, constants)
    assert "mul.lo.s64" in ptx and "shr.u64" in ptx and "shr.s64" not in ptx


def ptx_of(kernel: Any, signature: dict[str, str], constants: dict[str, Any]) -> str:
    """What the kernel becomes for compute capability 8.0."""
    return str(compile_for(kernel, signature, constants, 80).asm["ptx"])


def compile_for(
    kernel: Any, signature: dict[str, str], constants: dict[str, Any], capability: int
) -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = signature | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature=types, constexprs=constants)
    options = {"enable_fp_fusion": False, "num_warps": 16}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_cuda_and_cpu_agree_to_the_bit() -> None:
    assert dispatch.describe()["cuda"] == "Triton"
    for count, block, seed in itertools.product(
        [0, 1, 257, 100_000], [1, 7, 256, 4096, 1 << 15], [None, 3]
    ):
        compare_devices(Int8Codec(block), count, seed)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_cuda_and_cpu_have_the_same_fingerprints() -> None:
    for count in (0, 1, 1001, 3_000_001):
        values = torch.randn(count, generator=torch.Generator().manual_seed(count))
        for start in (0, 1):
            assert digest(values[start:].cuda()) == digest(values[start:])


def compare_devices(codec: Int8Codec, count: int, seed: int | None) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(count))
    if count > 200:
        values[100] = torch.nan
    found = []
    for device in ("cpu", "cuda"):
        residual = torch.full((count,), 0.01, device=device)
        total = values.to(device, copy=True)
        encoded = codec.encode(values.to(device), residual=residual, seed=seed)
        codec.decode_accumulate(encoded, total)
        found.append((total.cpu(), residual.cpu()))
    assert all(same_bits(here, there) for here, there in zip(*found, strict=True))


def test_no_constant_of_the_kernels_differs_from_itself() -> None:
    """Triton compares globals from launch to launch: to it NaN has changed at the second."""
    from swarmrt.kernels import triton_kernels

    constants = {
        name: constant.value
        for name, constant in vars(triton_kernels).items()
        if isinstance(constant, triton.language.constexpr)
    }
    assert constants
    assert [name for name, value in constants.items() if value != value] == []
