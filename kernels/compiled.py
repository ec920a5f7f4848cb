"""The kernels in C, on one thread, for the CPU: the functions of `swarmrt.kernels.reference`.

The library is built when swarmrt is installed where there is a C compiler (`setup.py`). It is plain
functions over pointers: calls go through ctypes, which lets other Python threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import functools
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch

INTERFACE = 3  # of kernels/native/simd.h
SIMD_LEVELS = ("the baseline instruction set", "AVX2", "AVX-512")  # of kernels/native/simd.h

_POINTER, _SIZE, _FLAG, _KEY = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_uint32
_PARAMETERS = {
    "int8_encode": (_POINTER, _POINTER, _POINTER, _SIZE, _SIZE, _FLAG, _KEY),
    "int8_encode_feedback": (_POINTER, _POINTER, _POINTER, _POINTER, _SIZE, _SIZE, _FLAG, _KEY),
    "int8_decode": (_POINTER, _POINTER, _POINTER, _SIZE, _SIZE),
    "int8_accumulate": (_POINTER, _POINTER, _POINTER, _SIZE, _SIZE),
    "bf16_encode": (_POINTER, _POINTER, _SIZE),
    "bf16_encode_feedback": (_POINTER, _POINTER, _POINTER, _SIZE),
    "bf16_decode": (_POINTER, _POINTER, _SIZE),
    "bf16_accumulate": (_POINTER, _POINTER, _SIZE),
    "fingerprint": (_POINTER, _SIZE, _SIZE, _POINTER),
}


class Unavailable(Exception):
    """There is no usable library; the text says why and what to do."""


@functools.cache
def problem() -> str | None:
    """Why these functions cannot be called, or None when they can."""
    try:
        _library()
    except Unavailable as error:
        return str(error)
    return None


def simd() -> str:
    """The instruction set that is used on this CPU. Raises Unavailable."""
    return SIMD_LEVELS[_library().swarmrt_simd_level()]


def encode_int8(
    values: torch.Tensor,
    scales: torch.Tensor,
    codes: torch.Tensor,
    block: int,
    key: int | None,
    residual: torch.Tensor | None,
) -> None:
    rounding = (key is not None, key or 0)
    pointers = [t.data_ptr() for t in (values, residual, scales, codes) if t is not None]
    name = "swarmrt_int8_encode" if residual is None else "swarmrt_int8_encode_feedback"
    getattr(_library(), name)(*pointers, len(values), block, *rounding)


def decode_int8(scales: torch.Tensor, codes: torch.Tensor, out: torch.Tensor, block: int) -> None:
    _library().swarmrt_int8_decode(
        scales.data_ptr(), codes.data_ptr(), out.data_ptr(), len(codes), block
    )


def accumulate_int8(
    scales: torch.Tensor, codes: torch.Tensor, total: torch.Tensor, block: int
) -> None:
    _library().swarmrt_int8_accumulate(
        scales.data_ptr(), codes.data_ptr(), total.data_ptr(), len(codes), block
    )


def encode_bf16(values: torch.Tensor, halves: torch.Tensor, residual: torch.Tensor | None) -> None:
    pointers = [t.data_ptr() for t in (values, residual, halves) if t is not None]
    name = "swarmrt_bf16_encode" if residual is None else "swarmrt_bf16_encode_feedback"
    getattr(_library(), name)(*pointers, len(values))


def decode_bf16(halves: torch.Tensor, out: torch.Tensor) -> None:
    _library().swarmrt_bf16_decode(halves.data_ptr(), out.data_ptr(), len(halves))


def accumulate_bf16(halves: torch.Tensor, total: torch.Tensor) -> None:
    _library().swarmrt_bf16_accumulate(halves.data_ptr(), total.data_ptr(), len(halves))


def fingerprint(data: torch.Tensor, place: int = 0) -> tuple[int, int]:
    sums = (ctypes.c_uint64 * 2)()
    _library().swarmrt_fingerprint(data.data_ptr(), len(data) // 8, place, sums)
    return sums[0], sums[1]


@functools.cache
def _library() -> ctypes.CDLL:
    folder = Path(__file__).parent
    for suffix in EXTENSION_SUFFIXES:
        if (path := folder / f"_native{suffix}").exists():
            return load(path)
    raise Unavailable(
        "the native library was not built: install a C compiler (cc) and then swarmrt again"
    )


def load(path: Path) -> ctypes.CDLL:
    """The library at `path`, its functions declared. Raises Unavailable."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise Unavailable(f"the native library cannot be loaded: {error}") from error
    if library.swarmrt_interface() != INTERFACE:
        raise Unavailable("the native library is of another version: install swarmrt again")
    for name, parameters in _PARAMETERS.items():
        function = getattr(library, f"swarmrt_{name}")
        function.argtypes = parameters
        function.restype = None
    return library
