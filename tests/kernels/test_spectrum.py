"""Peaks and signs: what is taken and what is left, and what anybody may send."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swarmrt.kernels.codecs import Precision
from swarmrt.kernels.spectrum import Spectrum

PRECISIONS: tuple[Precision, ...] = ("model", "bfloat16", "int8")
SHAPES = [(8, 1), (8, 8), (64, 3), (256, 6), (512, 20)]


def spectrum(
    chunk: int = 64,
    top_k: int = 3,
    precision: Precision = "model",
    dtype: torch.dtype = torch.float32,
) -> Spectrum:
    return Spectrum(chunk, top_k, precision, dtype)


def values(rows: int, chunk: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, chunk, generator=torch.Generator().manual_seed(rows)).to(dtype)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("chunk", "top_k"), SHAPES)
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_what_is_taken_and_what_is_left_are_all_of_it(
    rows: int, chunk: int, top_k: int, precision: Precision
) -> None:
    """What a codec loses is left too."""
    of = spectrum(chunk, top_k, precision)
    before, left = values(rows, chunk), values(rows, chunk)
    peaks = of.take_peaks(left)
    assert peaks.shape == (rows, of.peaks_bytes) and peaks.dtype == torch.uint8
    assert of.are_peaks(peaks)
    taken = _values(of, peaks, rows)
    assert torch.allclose(taken + left, before, atol=1e-5)
    assert not rows or float(left.norm()) < float(before.norm())


def _values(of: Spectrum, peaks: torch.Tensor, rows: int) -> torch.Tensor:
    """Return what peaks mean, by the definition of the transform."""
    frequencies = of.spread(peaks, torch.zeros(rows, of.chunk, dtype=of.dtype)).double()
    place = torch.arange(of.chunk).double() + 0.5
    found = frequencies[:, :1] * math.sqrt(1 / of.chunk) * torch.ones(of.chunk).double()
    for number in range(1, of.chunk):
        wave = torch.cos(math.pi * number * place / of.chunk) * math.sqrt(2 / of.chunk)
        found = found + frequencies[:, number : number + 1] * wave
    return found.to(of.dtype)


def test_largest_frequencies_are_taken() -> None:
    of = spectrum(64, 3)
    frequencies = torch.zeros(1, 64)
    frequencies[0, [3, 17, 40, 50]] = torch.tensor([5.0, -9.0, 0.5, 7.0])
    whole = of.take_peaks(_wave(frequencies))
    assert of.spread(whole, torch.zeros(1, 64)).abs().gt(1e-3).nonzero()[:, 1].tolist() == [
        3,
        17,
        50,
    ]


def _wave(frequencies: torch.Tensor) -> torch.Tensor:
    every = spectrum(64, 64)
    basis = torch.eye(64)
    of_basis = every.spread(every.take_peaks(basis.clone()), torch.zeros(64, 64))
    return frequencies @ of_basis.T


def test_all_frequencies_are_sent_without_indices_and_leave_nothing() -> None:
    of = spectrum(64, 64, dtype=torch.float64)
    left = values(5, 64, torch.float64)
    assert of.peaks_bytes == 64 * 8
    of.take_peaks(left)
    assert left.abs().max() < 1e-14


def test_signs_are_of_the_sum_and_a_still_chunk_stays() -> None:
    of = spectrum(64, 64, dtype=torch.float64)
    one, other = values(3, 64, torch.float64), values(3, 64, torch.float64).flip(0)
    one[1], other[1] = 0.0, 0.0
    frequencies = torch.zeros(3, 64, dtype=torch.float64)
    for each in (one, other):
        of.spread(of.take_peaks(each.clone()), frequencies)
    out = torch.empty(3 * 64 - 5, dtype=torch.float64)
    of.place_signs(of.signs_of(frequencies), out)
    assert torch.equal(out, (one + other).sign().view(-1)[: len(out)])


def test_what_is_not_finite_is_told_so() -> None:
    of = spectrum()
    bad = values(3, 64)
    bad[1, 5] = math.nan
    signs = of.signs_of(of.spread(of.take_peaks(bad), torch.zeros(3, 64)))
    out = torch.empty(3 * 64)
    of.place_signs(signs, out)
    assert out.view(3, 64).isfinite().all(dim=1).tolist() == [True, False, True]


@given(st.data(), st.sampled_from(PRECISIONS), st.sampled_from([(8, 3), (256, 6), (512, 2)]))
def test_bytes_from_anybody_are_refused_or_decoded_into_the_memory_there_is(
    data: st.DataObject, precision: Precision, shape: tuple[int, int]
) -> None:
    of = spectrum(*shape, precision)
    sent = data.draw(st.binary(min_size=2 * of.peaks_bytes, max_size=2 * of.peaks_bytes))
    peaks = torch.frombuffer(bytearray(sent), dtype=torch.uint8).view(2, -1)
    if of.are_peaks(peaks):
        assert of.signs_of(of.spread(peaks, torch.zeros(2, of.chunk))).shape == (2, of.signs_bytes)
    signs = data.draw(st.binary(min_size=2 * of.signs_bytes, max_size=2 * of.signs_bytes))
    out = torch.empty(2 * of.chunk - 3)
    of.place_signs(torch.frombuffer(bytearray(signs), dtype=torch.uint8).view(2, -1), out)
    assert set(out[out.isfinite()].tolist()) <= {-1.0, 0.0, 1.0}
