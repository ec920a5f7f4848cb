"""Checks of the Triton kernels by Triton's interpreter, on the CPU.

tests/kernels/test_triton.py runs them in processes of their own, for the variable has to be set
before triton is imported:

    TRITON_INTERPRET=1 python -m tests.kernels.triton_interpreted CHECK
"""

from __future__ import annotations

import itertools
import sys

import numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmrt.kernels import reference, triton_kernels
from tests.kernels.cases import blocks, run_all, same_bits, tensors


def compare(values: torch.Tensor, block: int, key: int | None, feedback: bool) -> None:
    residual = values.flip(0).nan_to_num(1.0) / 3 if feedback else None
    plain = run_all(reference, values, block, key, residual)
    interpreted = run_all(triton_kernels, values, block, key, residual)
    for name, expected in plain.items():
        assert same_bits(interpreted[name], expected), name


def agrees_with_torch_at_every_size() -> None:
    generator = torch.Generator().manual_seed(5)
    large = 2 * triton_kernels.LARGEST_BLOCK  # torch's
    for count, block, key, feedback in itertools.product(
        [0, 1, 15, 256, 257, 1000], [7, 256, 300, large], [None, 1, 2**32 - 1], [False, True]
    ):
        compare(torch.randn(count, generator=generator), block, key, feedback)


@settings(deadline=None)
@given(
    values=tensors(),
    block=blocks.filter(lambda block: block > 2),  # a program a block is slow when interpreted
    key=st.none() | st.integers(0, 2**32 - 1),
    feedback=st.booleans(),
)
def agrees_with_torch_on_every_kind_of_value(
    values: torch.Tensor, block: int, key: int | None, feedback: bool
) -> None:
    compare(values[:600], block, key, feedback)


def agrees_with_torch_on_fingerprints() -> None:
    generator = torch.Generator().manual_seed(6)
    words = 2 * triton_kernels.FINGERPRINT_WORDS
    for count, start in itertools.product([0, 1, 7, words - 1, words, words + 1], [0, 3, 8]):
        data = torch.randint(256, (8 * count + start,), generator=generator).byte()[start:]
        for place in (0, 5):
            found = triton_kernels.fingerprint(data, place)
            assert found == reference.fingerprint(data, place), (count, start, place)


CHECKS = {
    check.__name__: check
    for check in (
        agrees_with_torch_at_every_size,
        agrees_with_torch_on_every_kind_of_value,
        agrees_with_torch_on_fingerprints,
    )
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    with numpy.errstate(all="ignore"):  # the interpreter's, for infinity and the like
        CHECKS[sys.argv[1]]()
