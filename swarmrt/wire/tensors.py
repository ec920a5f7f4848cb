"""Tensors as bytes: a descriptor in the header, the raw little-endian values in the payload."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from swarmrt.errors import WireError

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int64": torch.int64,
    "int32": torch.int32,
    "uint8": torch.uint8,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_TENSORS = 16
MAX_DIMENSIONS = 8
MAX_EXTENT = 1 << 48  # product of the sizes that are not 0; torch overflows above 2**63
ALIGNMENT = 16  # of each tensor in the payload, so that all dtypes can be viewed in place
PLAIN = "plain"  # the only codec so far

Descriptor = tuple[str, tuple[int, ...], str]  # dtype name, shape, codec


def describe(tensors: Sequence[torch.Tensor]) -> list[Descriptor]:
    return [(NAMES[tensor.dtype], tuple(tensor.shape), PLAIN) for tensor in tensors]


def encode_tensors(tensors: Sequence[torch.Tensor]) -> list[memoryview]:
    """The payload in pieces, without copying tensors that are contiguous and on the CPU."""
    pieces = []
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().view(-1)
        if flat.numel():
            pieces.append(flat.view(torch.uint8).numpy().data)
        if padding := -(flat.numel() * flat.element_size()) % ALIGNMENT:
            pieces.append(memoryview(bytes(padding)))
    return pieces


def payload_bytes(descriptors: Sequence[Descriptor]) -> int:
    """The size that these descriptors ask for. Raises WireError when they make no sense."""
    if len(descriptors) > MAX_TENSORS:
        raise WireError(f"a message may carry at most {MAX_TENSORS} tensors")
    return sum(_padded(_tensor_bytes(descriptor)) for descriptor in descriptors)


def decode_tensors(descriptors: Sequence[Descriptor], payload: bytearray) -> list[torch.Tensor]:
    """Views of the payload. Its size has been checked against `payload_bytes`."""
    tensors, offset = [], 0
    for descriptor in descriptors:
        name, shape, _ = descriptor
        size = _tensor_bytes(descriptor)
        if size:
            flat = torch.frombuffer(payload, dtype=torch.uint8, count=size, offset=offset)
            tensors.append(flat.view(DTYPES[name]).view(shape))
        else:
            tensors.append(torch.empty(shape, dtype=DTYPES[name]))
        offset += _padded(size)
    return tensors


def _tensor_bytes(descriptor: Descriptor) -> int:
    name, shape, codec = descriptor
    if name not in DTYPES or codec != PLAIN:
        raise WireError(f"not a tensor descriptor: {descriptor!r:.80}")
    if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
        raise WireError(f"a tensor of shape {shape!r:.80} makes no sense")
    if math.prod(size or 1 for size in shape) > MAX_EXTENT:
        raise WireError(f"a tensor of shape {shape!r:.80} is larger than any message")
    return math.prod(shape) * DTYPES[name].itemsize


def _padded(size: int) -> int:
    return size + -size % ALIGNMENT
