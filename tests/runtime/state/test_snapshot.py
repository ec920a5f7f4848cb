"""A stage's state as one file: read back, by us and by the safetensors library, and refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import safetensors.torch
import torch

from swarmrt.errors import CheckpointError
from swarmrt.runtime.state import snapshot as snapshots
from swarmrt.runtime.state.snapshot import digest_of, header_bytes, read_snapshot, write_snapshot

TENSORS = {
    "model.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "optimizer.step": torch.tensor(3.0),
    "model.double": torch.tensor([0.1, -0.0], dtype=torch.float64),
    "model.half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
    "model.mask": torch.tensor([True, False, True]),
    "model.ids": torch.tensor([7], dtype=torch.int64),
    "model.nothing": torch.empty((0, 4)),
    "model.strided": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
}


def check_equal(read: dict[str, torch.Tensor]) -> None:
    assert set(read) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        torch.testing.assert_close(read[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_what_is_written_is_read() -> None:
    check_equal(read_snapshot(write_snapshot(1, 5, TENSORS), "it"))


def test_it_is_a_safetensors_file() -> None:
    check_equal(safetensors.torch.load(bytes(write_snapshot(1, 5, TENSORS))))
    dense = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    check_equal(read_snapshot(memoryview(bytearray(safetensors.torch.save(dense))), "it"))


def test_equal_states_give_equal_bytes_in_whatever_order() -> None:
    other_way = dict(reversed(TENSORS.items()))
    assert digest_of(write_snapshot(1, 5, TENSORS)) == digest_of(write_snapshot(1, 5, other_way))
    assert digest_of(write_snapshot(1, 5, TENSORS)) != digest_of(write_snapshot(1, 6, TENSORS))


def test_parameters_are_copied_and_not_shared() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    data = write_snapshot(0, 0, {"p": parameter})
    with torch.no_grad():
        parameter.add_(1)
    assert read_snapshot(data, "it")["p"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.uint16, torch.uint32, torch.uint64, torch.complex64),
        *(torch.float8_e4m3fn, torch.float8_e5m2),
    ],
    ids=str,
)
def test_what_safetensors_has_a_name_for_is_written(dtype: torch.dtype) -> None:
    """A constant buffer may be of any such dtype: rotations as complex numbers, for example."""
    buffer = torch.arange(3.0).to(dtype)
    tensors = {"model.buffer": buffer, "model.weight": torch.ones(5)}
    data = write_snapshot(0, 0, tensors)
    for read in (read_snapshot(data, "it"), safetensors.torch.load(bytes(data))):
        assert read["model.buffer"].dtype == dtype
        assert torch.equal(read["model.buffer"].view(torch.uint8), buffer.view(torch.uint8))


def test_a_tensor_that_no_file_can_hold_is_named() -> None:
    tensors = {"model.layers.1.turns": torch.ones(3, dtype=torch.complex128)}
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.turns is of torch\.complex128"):
        write_snapshot(0, 0, tensors)


def file_with(header: Any, tensors_bytes: int = 8) -> memoryview:
    text = json.dumps(header).encode()
    return memoryview(bytearray(len(text).to_bytes(8, "little") + text + bytes(tensors_bytes)))


@pytest.mark.parametrize(
    "data",
    [
        memoryview(b""),
        memoryview(b"\xff" * 64),
        memoryview((20).to_bytes(8, "little") + b"{}"),
        memoryview((2).to_bytes(8, "little") + b"\xff\xff"),
        file_with([]),
        file_with({"a": 3}),
        file_with({"a": {"dtype": "F32", "shape": [2]}}),
        file_with({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}),
        file_with({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}),
        file_with({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
        file_with({"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}),
        file_with({"a": {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}}),
        file_with({"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}),
        file_with({"a": {"dtype": "F32", "shape": [1 << 70, 0], "data_offsets": [0, 0]}}),
        file_with({"a": {"dtype": "F32", "shape": [0, 2**40, 2**40], "data_offsets": [0, 0]}}, 0),
        file_with({"a": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}}, 0),
        file_with({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}),
        file_with({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        file_with({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}),
        file_with({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0.0, 8.0]}}),
        file_with({"a": {"dtype": "F32", "shape": [0], "data_offsets": [1 << 70, 1 << 70]}}, 0),
    ],
)
def test_damaged_file_is_refused_with_its_name(data: memoryview) -> None:
    with pytest.raises(CheckpointError, match="version 7 of a peer is not a readable snapshot"):
        read_snapshot(data, "version 7 of a peer")


def test_a_header_is_no_longer_than_it_is_known_to_be() -> None:
    data, known = write_snapshot(1, 5, TENSORS), header_bytes(1, 5, TENSORS)
    check_equal(read_snapshot(data, "it", known))
    with pytest.raises(CheckpointError, match=f"a header of {known} bytes"):
        read_snapshot(data, "it", known - 1)


def test_no_header_is_written_that_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    known = header_bytes(1, 5, TENSORS)
    monkeypatch.setattr(snapshots, "HEADER_BYTES", known)
    write_snapshot(1, 5, TENSORS)
    monkeypatch.setattr(snapshots, "HEADER_BYTES", known - 1)
    with pytest.raises(CheckpointError, match="8 tensors, too many for one file"):
        write_snapshot(1, 5, TENSORS)
