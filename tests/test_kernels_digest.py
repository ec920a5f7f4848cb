import pytest
import torch

from swarmrt.kernels.digest import digest


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_digest_sees_one_flipped_bit(dtype: torch.dtype) -> None:
    tensor = torch.arange(1001).to(dtype)
    other = tensor.clone()
    assert digest(tensor) == digest(other) and len(digest(tensor)) == 32
    other.view(torch.uint8)[777] ^= 1
    assert digest(tensor) != digest(other)


def test_digest_tells_negative_zero_from_zero() -> None:
    assert digest(torch.tensor([0.0])) != digest(torch.tensor([-0.0]))


def test_digest_of_a_slice_reads_the_slice_only() -> None:
    tensor = torch.arange(100.0)
    assert digest(tensor[10:20]) == digest(tensor[10:20].clone())


def test_digest_of_a_parameter_and_of_nothing() -> None:
    assert digest(torch.nn.Parameter(torch.ones(3))) == digest(torch.ones(3))
    assert len(digest(torch.empty(0))) == 32


def test_digest_refuses_what_it_would_have_to_copy() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        digest(torch.ones(4, 4)[:, 0])
