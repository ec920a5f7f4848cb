"""The fingerprint: what it means, to all implementations, and what it tells apart."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swarmrt.kernels import compiled, reference
from swarmrt.kernels.digest import Digest, digest, mixed
from tests.kernels.cases import native_library, needs_native

LARGE = 8 * reference.CHUNK_WORDS * 2 + 123  # more than two of torch's chunks


def tensor_of(data: bytes) -> torch.Tensor:
    return torch.tensor(list(data), dtype=torch.uint8)


def meaning(data: bytes) -> str:
    """As the docstring has it, word by word, in any order."""
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
    pairs = [mixed(word, place) for place, word in enumerate([*words, len(data)])]
    random.Random(len(data)).shuffle(pairs)
    first, second = (sum(column) % 2**64 for column in zip(*pairs, strict=True))
    return f"{first:016x}{second:016x}"


@given(st.binary(max_size=300))
def test_digest_is_the_sum_of_its_words_mixed_with_their_places(data: bytes) -> None:
    assert digest(tensor_of(data)) == meaning(data)


def test_the_first_word_of_zeros_is_splitmix64s_first() -> None:
    """Its published outputs from state 0."""
    assert [mixed(0, place)[0] for place in range(3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


@needs_native
@pytest.mark.parametrize("simd", ["AVX512", "AVX2", "BASELINE"])
def test_c_and_torch_agree(simd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = native_library(simd, tmp_path)
    monkeypatch.setattr(compiled, "_library", lambda: loaded)
    compare_with_torch()
    data = torch.randint(256, (LARGE,), generator=torch.Generator().manual_seed(1)).byte()
    for start in range(8):
        words = data[start:][: LARGE // 8 * 8 - 8]
        assert compiled.fingerprint(words) == reference.fingerprint(words)


@given(data=st.binary(max_size=1000), start=st.integers(0, 7), place=st.integers(0, 1 << 40))
def compare_with_torch(data: bytes, start: int, place: int) -> None:
    """At any address, of any number of words, from any place on."""
    words = tensor_of(data)[start:]
    words = words[: len(words) // 8 * 8]
    assert compiled.fingerprint(words, place) == reference.fingerprint(words, place)


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_pieces_have_the_digest_of_the_whole(pieces: list[bytes]) -> None:
    whole = Digest()
    for piece in pieces:
        whole.add(tensor_of(piece))
    assert whole.hexdigest() == digest(tensor_of(b"".join(pieces)))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_every_flipped_bit_shows(dtype: torch.dtype) -> None:
    tensor = torch.arange(101).to(dtype)
    found = {digest(tensor)}
    data = tensor.view(torch.uint8)
    for place in range(len(data)):
        for bit in range(8):
            data[place] ^= 1 << bit
            found.add(digest(tensor))
            data[place] ^= 1 << bit
    assert len(found) == 1 + 8 * len(data)


def test_what_moves_shows() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(2))
    swapped, shifted, turned = values.clone(), values.roll(1), values.flip(0)
    swapped[[3, 500]] = values[[500, 3]]
    halves = torch.cat([values[500:], values[:500]])
    longer, shorter = torch.cat([values, torch.zeros(1)]), values[:-1]
    others = [swapped, shifted, turned, halves, longer, shorter, values.double()]
    assert len({digest(tensor) for tensor in [values, *others]}) == 1 + len(others)


def test_zeros_of_every_length_differ() -> None:
    assert len({digest(torch.zeros(count, dtype=torch.uint8)) for count in range(100)}) == 100


def test_bytes_count_and_not_what_they_stand_for() -> None:
    assert digest(torch.tensor([0.0])) != digest(torch.tensor([-0.0]))
    nans = torch.tensor([0x7FC00000, 0x7FC00001, -0x400000], dtype=torch.int32).view(torch.float32)
    assert nans.isnan().all() and len({digest(nan) for nan in nans}) == 3
    assert digest(nans) == digest(nans.clone())


def test_digest_of_a_slice_reads_the_slice_only() -> None:
    tensor = torch.arange(100.0)
    assert digest(tensor[11:20]) == digest(tensor[11:20].clone())


def test_digest_of_a_parameter_and_of_nothing() -> None:
    assert digest(torch.nn.Parameter(torch.ones(3))) == digest(torch.ones(3))
    assert len(digest(torch.empty(0))) == 32


def test_digest_refuses_what_it_would_have_to_copy() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        digest(torch.ones(4, 4)[:, 0])
