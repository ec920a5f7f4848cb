"""Which implementation of the kernels serves a device: C, Triton, or eager torch for all else."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Protocol, cast

import torch

from swarmrt.kernels import compiled, reference


class Implementation(Protocol):
    """The functions that an implementation has; `swarmrt.kernels.reference` says what they do."""

    def encode_int8(
        self,
        values: torch.Tensor,
        scales: torch.Tensor,
        codes: torch.Tensor,
        block: int,
        key: int | None,
        residual: torch.Tensor | None,
    ) -> None: ...

    def decode_int8(
        self, scales: torch.Tensor, codes: torch.Tensor, out: torch.Tensor, block: int
    ) -> None: ...

    def accumulate_int8(
        self, scales: torch.Tensor, codes: torch.Tensor, total: torch.Tensor, block: int
    ) -> None: ...

    def encode_bf16(
        self, values: torch.Tensor, halves: torch.Tensor, residual: torch.Tensor | None
    ) -> None: ...

    def decode_bf16(self, halves: torch.Tensor, out: torch.Tensor) -> None: ...

    def accumulate_bf16(self, halves: torch.Tensor, total: torch.Tensor) -> None: ...

    def fingerprint(self, data: torch.Tensor, place: int = 0) -> tuple[int, int]: ...


def implementation(device: torch.device) -> Implementation:
    """The fastest implementation that can be used for tensors on this device."""
    if device.type == "cpu" and compiled.problem() is None:
        return compiled
    if device.type == "cuda" and _triton_problem() is None:
        return cast(Implementation, importlib.import_module("swarmrt.kernels.triton_kernels"))
    return reference


def describe() -> dict[str, str]:
    """For each kind of device ("cpu", "cuda"), in words: what serves it, and if that is not the
    fastest, why."""
    return {"cpu": _describe_cpu(), "cuda": _describe_cuda()}


def _describe_cpu() -> str:
    problem = compiled.problem()
    return f"C with {compiled.simd()}" if problem is None else f"eager torch: {problem}"


def _describe_cuda() -> str:
    if not torch.cuda.is_available():
        return "not used: torch sees no CUDA device"
    problem = _triton_problem()
    return "Triton" if problem is None else f"eager torch: {problem}"


@functools.cache
def _triton_problem() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    try:
        kernels = importlib.import_module("swarmrt.kernels.triton_kernels")
        one = torch.ones(1, device="cuda")
        kernels.decode_int8(one, one.to(torch.int8), torch.empty_like(one), 1)
    except Exception as error:  # whatever a compiler raises that lacks a part: torch serves instead
        return f"triton does not work: {error}"
    return None
