"""Tensors as bytes: a descriptor in the header, the raw little-endian values in the payload."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
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
_IN_NUMPY = {  # which makes views in half the time
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.int64: np.int64,
}
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
        size = tensor.nbytes
        if size:
            pieces.append(_bytes_of(tensor))
        if padding := -size % ALIGNMENT:
            pieces.append(memoryview(bytes(padding)))
    return pieces


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor with few calls of torch: each costs a microsecond."""
    if tensor.requires_grad or not tensor.is_cpu or not tensor.is_contiguous():
        tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype not in _IN_NUMPY:
        tensor = tensor.view(-1).view(torch.uint8)
    return tensor.numpy().data.cast("B")


class Place(NamedTuple):
    """The place of a tensor in the payload."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    extent: int  # how many numbers


@lru_cache(maxsize=1024)  # most messages have tensors of the same few shapes
def places(descriptors: tuple[Descriptor, ...]) -> tuple[tuple[Place, ...], int]:
    """Return where all tensors are, and the size of the payload. Raises WireError when they make no
    sense."""
    if len(descriptors) > MAX_TENSORS:
        raise WireError(f"a message may carry at most {MAX_TENSORS} tensors")
    its_places, offset = [], 0
    for name, shape, codec in descriptors:
        dtype = DTYPES.get(name)
        if dtype is None or codec != PLAIN:
            raise WireError(f"not a tensor descriptor: {(name, shape, codec)!r:.80}")
        if len(shape) > MAX_DIMENSIONS or min(shape, default=0) < 0:
            raise WireError(f"a tensor of shape {shape!r:.80} makes no sense")
        extent = math.prod(shape)
        if extent > MAX_EXTENT or (not extent and math.prod(filter(None, shape)) > MAX_EXTENT):
            raise WireError(f"a tensor of shape {shape!r:.80} is larger than any message")
        its_places.append(Place(dtype, shape, offset, extent))
        offset += _padded(extent * dtype.itemsize)
    return tuple(its_places), offset


def new_buffer(size_bytes: int) -> memoryview:
    """Memory that costs nothing until it is written. NumPy's comes in huge pages where the system
    has them: a third of the page faults' time."""
    return np.empty(size_bytes, dtype=np.uint8).data


def decode_tensors(its_places: Sequence[Place], payload: memoryview) -> list[torch.Tensor]:
    """Views of the payload, which is as large as `places` has said."""
    return [_view(place, payload) for place in its_places]


def _view(place: Place, payload: memoryview) -> torch.Tensor:
    dtype, shape, offset, extent = place
    if not extent:
        return torch.empty(shape, dtype=dtype)
    in_numpy = _IN_NUMPY.get(dtype)
    if in_numpy is not None:
        return torch.from_numpy(np.ndarray(shape, in_numpy, payload, offset))
    return torch.frombuffer(payload, dtype=dtype, count=extent, offset=offset).view(shape)


def _padded(size: int) -> int:
    return size + -size % ALIGNMENT
