"""The codecs: what they promise, and that all implementations mean the same."""

from __future__ import annotations

import math
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swarmrt.kernels import codecs, compiled, dispatch, reference
from swarmrt.kernels.codecs import Bf16Codec, Codec, Int8Codec
from tests.kernels.cases import (
    LARGEST,
    blocks,
    by_block,
    native_library,
    needs_native,
    run_all,
    same_bits,
    tensors,
)

ROUNDING = 2.0**-15  # of a scale: from x * (127 / absmax) and from the scale itself
CODECS: list[Codec] = [Int8Codec(), Int8Codec(block=5), Bf16Codec()]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# --- int8 ---------------------------------------------------------------------------------------


@given(values=tensors(finite=True, most=LARGEST / 2), block=blocks)
def test_int8_decodes_to_within_half_a_step(values: torch.Tensor, block: int) -> None:
    codec = Int8Codec(block)
    decoded = codec.decode(codec.encode(values), torch.empty_like(values))
    absmax = by_block(values, block).abs().amax(1).double()
    step = absmax / 127
    allowed = torch.where(absmax < reference.SMALLEST_ABSMAX, absmax, step * (0.5 + ROUNDING))
    lost = by_block(decoded.double() - values.double(), block).abs()
    assert (lost <= allowed[:, None]).all()


@given(values=tensors(), block=blocks)
def test_int8_shows_what_is_not_finite(values: torch.Tensor, block: int) -> None:
    codec = Int8Codec(block)
    decoded = by_block(codec.decode(codec.encode(values), torch.empty_like(values)), block)
    rows = by_block(values, block)
    broken = ~rows.isfinite().all(1)
    filled = by_block(torch.ones_like(values), block) > 0
    assert decoded[broken][filled[broken]].isnan().all()
    assert not decoded[~broken].isnan().any()


@given(values=tensors(), block=blocks)
def test_int8_is_scales_then_codes(values: torch.Tensor, block: int) -> None:
    codec = Int8Codec(block)
    encoded = codec.encode(values)
    blocks_of = -(-len(values) // block)
    assert len(encoded) == codec.encoded_bytes(len(values)) == 4 * blocks_of + len(values)
    codes = encoded[4 * blocks_of :].view(torch.int8)
    assert (codes.int().abs() <= 127).all()


def test_int8_rounds_ties_to_even() -> None:
    values = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, -127.0])
    codes = Int8Codec(8).encode(values)[4:].view(torch.int8)
    assert codes.tolist() == [127, 0, 2, 2, 0, -2, -2, -127]


def test_int8_zeros_decode_to_zeros() -> None:
    codec, values = Int8Codec(4), torch.tensor([0.0, -0.0, 0.0, 0.0, 1e-45, -1e-38, 0.0, 0.0])
    assert torch.equal(codec.decode(codec.encode(values), torch.ones(8)), torch.zeros(8))


def test_int8_codes_from_elsewhere_decode_too() -> None:
    """-128 is never written, but another process may send it."""
    encoded = torch.cat([torch.tensor([0.5]).view(torch.uint8), torch.tensor([128]).byte()])
    assert Int8Codec().decode(encoded, torch.empty(1)).item() == -64


@given(values=tensors(finite=True, most=1e30), seed=st.integers(-5, 2**70), block=blocks)
def test_stochastic_rounding_takes_a_neighbour(values: torch.Tensor, seed: int, block: int) -> None:
    codec = Int8Codec(block)
    encoded = codec.encode(values, seed=seed)
    assert torch.equal(encoded, codec.encode(values, seed=seed))
    decoded = codec.decode(encoded, torch.empty_like(values))
    absmax = by_block(values, block).abs().amax(1).double()
    allowed = torch.where(absmax < reference.SMALLEST_ABSMAX, absmax, absmax / 127 * (1 + ROUNDING))
    lost = by_block(decoded.double() - values.double(), block).abs()
    assert (lost <= allowed[:, None]).all()


def test_stochastic_rounding_has_the_value_as_its_mean() -> None:
    codec, rounds = Int8Codec(64), 4000
    values = torch.randn(256, generator=torch.Generator().manual_seed(1))
    values[:3] = torch.tensor([127 * 0.02, 0.0, 1e-4])
    total = torch.zeros_like(values)
    for seed in range(rounds):
        codec.decode_accumulate(codec.encode(values, seed=seed), total)
    step = (by_block(values, 64).abs().amax(1) / 127).repeat_interleave(64)
    error = (total / rounds - values) / step
    assert error.abs().max() < 5 * 0.5 / math.sqrt(rounds)  # 5 standard deviations, at most
    assert abs(error.mean()) < 5 * 0.5 / math.sqrt(rounds * 256)
    assert total[1] == 0  # what is on a code stays there


def test_stochastic_rounding_draws_anew_for_each_seed_and_place() -> None:
    codec, values = Int8Codec(), torch.full((4096,), 0.5)
    values[::256] = 127.0
    seeds = [codec.encode(values, seed=seed)[64:].view(torch.int8).float() for seed in range(4)]
    drawn = torch.stack([codes.view(16, 256)[:, 1:].flatten() for codes in seeds])
    assert set(drawn.flatten().tolist()) == {0.0, 1.0}
    assert torch.corrcoef(drawn).fill_diagonal_(0).abs().max() < 0.08  # 5 / sqrt(4080)
    shifted = torch.stack([drawn[0, :-1], drawn[0, 1:]])
    assert abs(torch.corrcoef(shifted)[0, 1]) < 0.08


# --- bfloat16 -----------------------------------------------------------------------------------


@given(values=tensors())
def test_bf16_is_what_torch_casts_to(values: torch.Tensor) -> None:
    codec = Bf16Codec()
    encoded = codec.encode(values)
    assert len(encoded) == codec.encoded_bytes(len(values))
    decoded = codec.decode(encoded, torch.empty_like(values))
    assert same_bits(decoded, values.bfloat16().float())
    assert torch.equal(decoded.isnan(), values.isnan())


def test_bf16_keeps_every_nan_a_nan() -> None:
    patterns = torch.tensor([0x7F800001, 0x7FFFFFFF, -1, -0x7FFFFF], dtype=torch.int32)
    values = patterns.view(torch.float32)
    assert values.isnan().all()
    codec = Bf16Codec()
    assert codec.decode(codec.encode(values), torch.empty(4)).isnan().all()


# --- all codecs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS, ids=str)
@given(values=tensors(), start=st.floats(-1e6, 1e6, width=32))
def test_accumulating_is_decoding_and_adding(
    codec: Codec, values: torch.Tensor, start: float
) -> None:
    encoded = codec.encode(values)
    total = torch.full_like(values, start)
    expected = total + codec.decode(encoded, torch.empty_like(values))
    assert codec.decode_accumulate(encoded, total) is total
    assert same_bits(total, expected)


@pytest.mark.parametrize("codec", CODECS, ids=str)
@given(values=tensors(finite=True, most=1e30))
def test_a_residual_is_what_was_lost(codec: Codec, values: torch.Tensor) -> None:
    residual = values.flip(0) / 64
    corrected = values + residual
    encoded = codec.encode(values, residual=residual)
    assert torch.equal(encoded, codec.encode(corrected))
    decoded = codec.decode(encoded, torch.empty_like(values))
    assert same_bits(residual, corrected - decoded)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_error_feedback_loses_nothing_in_the_long_run(codec: Codec) -> None:
    generator = torch.Generator().manual_seed(3)
    residual, sent, told = torch.zeros(1000), torch.zeros(1000), torch.zeros(1000)
    for _ in range(50):
        values = torch.randn(1000, generator=generator)
        sent += values
        codec.decode_accumulate(codec.encode(values, residual=residual), told)
    torch.testing.assert_close(told + residual, sent, rtol=1e-5, atol=1e-4)
    assert residual.abs().max() < 0.05


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_bad_value_is_seen_once_and_leaves_no_residual(codec: Codec, value: float) -> None:
    values, residual = torch.ones(300), torch.full((300,), 0.001)
    values[299] = value
    encoded = codec.encode(values, residual=residual)
    assert not codec.decode(encoded, torch.empty(300))[299].isfinite()
    assert residual.isfinite().all() and residual[299] == 0
    again = codec.encode(torch.ones(300), residual=residual)
    assert codec.decode(again, torch.empty(300)).isfinite().all()


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_shapes_parameters_and_buffers_of_ones_own(codec: Codec) -> None:
    values = torch.nn.Parameter(torch.randn(3, 10, 7))
    out = torch.empty(codec.encoded_bytes(210), dtype=torch.uint8)
    assert codec.encode(values, out=out) is out
    assert torch.equal(out, codec.encode(values.detach().view(-1)))
    decoded = codec.decode(out, torch.empty(3, 10, 7))
    torch.testing.assert_close(decoded, values.detach(), rtol=0.01, atol=0.05)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_large_tensors_at_any_place_in_memory(codec: Codec) -> None:
    """Large outputs are written past the cache, from where they are aligned."""
    count = (1 << 20) + 333
    values = torch.randn(count + 8, generator=torch.Generator().manual_seed(5))
    small = (count // 2560) * 1280  # both halves are below that size; blocks stay the same
    for offset in (0, 1, 4):
        part = values[offset : offset + count]
        decoded = codec.decode(codec.encode(part), torch.zeros(count + 8)[offset:][:count])
        for piece in (slice(0, small), slice(small, count)):
            alone = codec.decode(codec.encode(part[piece]), torch.empty_like(part[piece]))
            assert torch.equal(decoded[piece], alone)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_what_does_not_fit_is_refused(codec: Codec) -> None:
    values, encoded = torch.ones(10), codec.encode(torch.ones(10))
    with pytest.raises(ValueError, match="values must be float32, not float64"):
        codec.encode(values.double())
    with pytest.raises(ValueError, match="values must be contiguous"):
        codec.encode(torch.ones(10, 2)[:, 0])
    with pytest.raises(ValueError, match="residual must be like the values, of shape"):
        codec.encode(values, residual=torch.zeros(9))
    with pytest.raises(ValueError, match="residual must be float32"):
        codec.encode(values, residual=torch.zeros(10).double())
    with pytest.raises(ValueError, match="10 values are .* bytes when encoded, not 3"):
        codec.encode(values, out=torch.empty(3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="11 values are .* bytes when encoded"):
        codec.decode(encoded, torch.empty(11))
    with pytest.raises(ValueError, match="out must be contiguous"):
        codec.decode(encoded, torch.empty(10, 2)[:, 0])
    with pytest.raises(ValueError, match="total must be float32, not bfloat16"):
        codec.decode_accumulate(encoded, torch.zeros(10).bfloat16())
    with pytest.raises(ValueError, match="encoded tensor must be uint8"):
        codec.decode(encoded.view(torch.int8), torch.empty(10))
    with pytest.raises(ValueError, match="the encoded tensor is on cpu, its values are on meta"):
        codec.decode(encoded, torch.empty(10, device="meta"))
    shifted = torch.empty(len(encoded) + 1, dtype=torch.uint8)[1:]
    with pytest.raises(ValueError, match="must begin at a multiple"):
        codec.decode(shifted, torch.empty(10))


@pytest.mark.parametrize("block", [0, -1, 1 << 21])
def test_blocks_have_a_sensible_size(block: int) -> None:
    with pytest.raises(ValueError, match=f"a block has 1 to 1048576 values, not {block}"):
        Int8Codec(block)


# --- implementations ----------------------------------------------------------------------------


@needs_native
@pytest.mark.parametrize("simd", ["AVX512", "AVX2", "BASELINE"])
def test_c_and_torch_agree_to_the_bit(
    simd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = native_library(simd, tmp_path)
    monkeypatch.setattr(compiled, "_library", lambda: loaded)
    compare_with_torch()


@given(
    values=tensors(),
    block=blocks,
    key=st.none() | st.integers(0, 2**32 - 1),
    feedback=st.booleans(),
)
def compare_with_torch(values: torch.Tensor, block: int, key: int | None, feedback: bool) -> None:
    residual = values.flip(0).nan_to_num(1.0) / 3 if feedback else None
    plain = run_all(reference, values, block, key, residual)
    native = run_all(compiled, values, block, key, residual)
    for name, expected in plain.items():
        assert same_bits(native[name], expected), name


def test_without_the_library_torch_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    values, codec = torch.randn(1000), Int8Codec()
    expected = codec.encode(values)
    monkeypatch.setattr(compiled, "problem", lambda: "the native library was not built")
    assert dispatch.implementation(torch.device("cpu")) is reference
    assert dispatch.describe()["cpu"] == "eager torch: the native library was not built"
    assert torch.equal(codec.encode(values), expected)


@needs_native
def test_the_library_serves_where_it_was_built() -> None:
    assert dispatch.implementation(torch.device("cpu")) is compiled
    assert dispatch.describe()["cpu"].startswith("C with ")


def test_a_missing_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    with pytest.raises(compiled.Unavailable, match="install a C compiler"):
        compiled._library.__wrapped__()
    for suffix in EXTENSION_SUFFIXES:
        (tmp_path / f"_native{suffix}").write_text("not a library")
    with pytest.raises(compiled.Unavailable, match="cannot be loaded"):
        compiled._library.__wrapped__()


def test_cuda_is_described_also_where_there_is_none() -> None:
    assert dispatch.describe()["cuda"]


def test_seeds_are_spread() -> None:
    assert len({codecs._key(seed) for seed in range(1000)}) == 1000
