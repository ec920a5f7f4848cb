"""A stage's state as one file in memory, in the safetensors format.

Replicas are equal to the bit, so their snapshots are equal to the byte: tensors are laid out in an
order that follows from names and dtypes alone. The safetensors library writes the same format, but
takes four times as long, for it passes over fresh memory again and again: here every tensor is
copied once, and read where it lies.

The format: 8 bytes with the size of a JSON header, the header, and the tensors back to back
(https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from swarmrt.errors import CheckpointError
from swarmrt.wire.tensors import new_buffer

HEADER_BYTES = 100_000_000  # at the most: the safetensors library reads no longer ones
SIZE_BYTES = 8
MAX_EXTENT = 1 << 48  # product of a shape's sizes that are not 0; torch overflows above 2**63
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Snapshot:
    """A version of a stage. The digest is what `digest_of` gives of the data."""

    stage: int
    version: int
    data: memoryview
    digest: str


def digest_of(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def write_snapshot(
    stage: int,
    version: int,
    tensors: Mapping[str, torch.Tensor],
    new: Callable[[int], memoryview] = new_buffer,
) -> memoryview:
    """Return the file, with one copy of each tensor, from whatever device it is on.

    It lies in what `new` gives for its size in bytes.
    """
    entries, text = _header(stage, version, tensors)
    data = new(snapshot_bytes(stage, version, tensors))
    data[:SIZE_BYTES] = len(text).to_bytes(SIZE_BYTES, "little")
    begin = SIZE_BYTES + len(text)
    data[SIZE_BYTES:begin] = text
    for name, entry in entries.items():
        _view(data, entry, begin).copy_(tensors[name].detach())
    return data


def as_written_now(stage: int, version: int, data: memoryview) -> memoryview:
    """A file as every replica would write it: others take no other size. Raises CheckpointError."""
    tensors = read_snapshot(data, f"the checkpoint of version {version}, stage {stage}")
    if len(data) == snapshot_bytes(stage, version, tensors):
        return data
    return write_snapshot(stage, version, tensors)


def snapshot_bytes(stage: int, version: int, tensors: Mapping[str, torch.Tensor]) -> int:
    """Return how large the file of such tensors is, whatever device they are on."""
    values_bytes = sum(tensor.nbytes for tensor in tensors.values())
    return SIZE_BYTES + header_bytes(stage, version, tensors) + values_bytes


def header_bytes(stage: int, version: int, tensors: Mapping[str, torch.Tensor]) -> int:
    """Return how long the header of such tensors' file is."""
    _, text = _header(stage, version, tensors)
    return len(text)


def _header(
    stage: int, version: int, tensors: Mapping[str, torch.Tensor]
) -> tuple[dict[str, dict[str, Any]], bytes]:
    """The entries of all tensors, in the order in which they lie, and the header's text.

    Raises CheckpointError when no file can hold them.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES:
            raise CheckpointError(
                f"{name} is of {tensor.dtype}, which a checkpoint cannot hold; make it one of "
                f"{', '.join(map(str, NAMES))}"
            )
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, dict[str, Any]] = {}
    end = 0
    for name in names:
        tensor, start = tensors[name], end
        end = start + tensor.nbytes
        entries[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    metadata = {"__metadata__": {"swarmrt": json.dumps({"stage": stage, "version": version})}}
    text = json.dumps(metadata | entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % SIZE_BYTES)  # so that tensors are aligned
    if len(text) > HEADER_BYTES:
        raise CheckpointError(
            f"stage {stage} has {len(tensors)} tensors, too many for one file: its header would "
            f"take {len(text)} bytes, and {HEADER_BYTES} are read; cut the model into more stages"
        )
    return entries, text


def read_snapshot(
    data: memoryview, source: str, most_header_bytes: int = HEADER_BYTES
) -> dict[str, torch.Tensor]:
    """Read a snapshot's tensors, which share the memory of `data`.

    Pass the header's length where it is known: what others send is not believed to be longer.
    Raises CheckpointError naming the source.
    """
    try:
        size = int.from_bytes(data[:SIZE_BYTES], "little")
        if not 0 < size <= min(most_header_bytes, len(data) - SIZE_BYTES):
            raise ValueError(f"a header of {size} bytes")
        begin = SIZE_BYTES + size
        header = json.loads(bytes(data[SIZE_BYTES:begin]))
        header.pop("__metadata__", None)
        tensors = {name: _view(data, entry, begin) for name, entry in header.items()}
        _refuse_holes([entry["data_offsets"] for entry in header.values()], len(data) - begin)
        return tensors
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{source} is not a readable snapshot: {error!r}") from None


def _refuse_holes(offsets: list[list[int]], size: int) -> None:
    """Check that tensors lie one after the other and fill the file. Raises ValueError."""
    end = 0
    for start, its_end in sorted(offsets):
        if start != end:
            raise ValueError(f"tensors overlap, or there is something between them, at {start}")
        end = its_end
    if end != size:
        raise ValueError(f"tensors of {end} bytes in {size}")


def _view(data: memoryview, entry: dict[str, Any], begin: int) -> torch.Tensor:
    """The tensor that an entry of the header describes. Raises ValueError unless it fits."""
    dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
    start, end = entry["data_offsets"]
    count = math.prod(shape)
    if any(type(n) is not int or n < 0 for n in (start, end, *shape)):
        raise ValueError(f"a shape or an offset is not a number: {entry}")
    if math.prod(filter(None, shape)) > MAX_EXTENT:
        raise ValueError(f"no tensor is so large: {entry}")
    if end - start != count * dtype.itemsize or begin + end > len(data):
        raise ValueError(f"a tensor does not fit its place: {entry}")
    if not count:
        return torch.empty(shape, dtype=dtype)
    flat = torch.frombuffer(data, dtype=dtype, count=count, offset=begin + start)
    return flat.reshape(shape)
