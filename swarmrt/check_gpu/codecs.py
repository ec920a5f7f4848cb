"""The throughput of codecs and digests on the device, beside copying the same values there.

A throughput is bytes of fp32 values a second, whatever the size of what they become. A copy reads
and writes them: it moves twice that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from swarmrt.check_gpu.job import Job
from swarmrt.check_gpu.timing import median_s
from swarmrt.kernels.codecs import Bf16Codec, Codec, Int8Codec
from swarmrt.kernels.digest import digest
from swarmrt.kernels.dispatch import describe

GPU_VALUES, CPU_VALUES = 1 << 26, 1 << 20  # past any cache; quick
GPU_ROUNDS, CPU_ROUNDS = 20, 3


def check(job: Job) -> None:
    count, rounds = (GPU_VALUES, GPU_ROUNDS) if job.is_gpu else (CPU_VALUES, CPU_ROUNDS)
    values = torch.randn(count, generator=torch.Generator().manual_seed(0)).to(job.device)
    copy = torch.empty_like(values)
    copy_s = median_s(job.device, lambda: copy.copy_(values), rounds)
    job.book.figure("implementation", describe()["cuda" if job.is_gpu else "cpu"])
    job.book.figure("copy_bytes_per_s", values.nbytes / copy_s)
    ways = _ways("int8", Int8Codec(), values) | _ways("bf16", Bf16Codec(), values)
    ways["digest"] = lambda: digest(values)
    for name, work in ways.items():
        taken_s = median_s(job.device, work, rounds)
        job.book.figure(f"{name}_bytes_per_s", values.nbytes / taken_s)
        job.book.figure(f"{name}_over_copy", copy_s / taken_s)
        if name == "int8_encode":
            says = f"int8 encode {values.nbytes / taken_s / 1e9:.0f} GB/s, {copy_s / taken_s:.2f}"
            job.book.say(f"{says} of a copy")
    if job.is_gpu:
        _to_host(job, values[: count // 4])


def _ways(name: str, codec: Codec, values: torch.Tensor) -> dict[str, Callable[[], object]]:
    encoded, residual = codec.encode(values), torch.zeros_like(values)
    out, total = torch.zeros_like(values), torch.zeros_like(values)
    return {
        f"{name}_encode": lambda: codec.encode(values, out=encoded),
        f"{name}_encode_feedback": lambda: codec.encode(values, residual=residual, out=encoded),
        f"{name}_decode": lambda: codec.decode(encoded, out),
        f"{name}_accumulate": lambda: codec.decode_accumulate(encoded, total),
    }


def _to_host(job: Job, values: torch.Tensor) -> None:
    """Time what a reduce pays: the way to the host and back, through pinned memory and other."""
    for kind, pinned in (("pinned", True), ("pageable", False)):
        host = torch.empty(values.shape, pin_memory=pinned)
        there_s = median_s(job.device, partial(host.copy_, values), 5)
        back_s = median_s(job.device, partial(values.copy_, host), 5)
        job.book.figure(f"to_host_{kind}_bytes_per_s", values.nbytes / there_s)
        job.book.figure(f"to_device_{kind}_bytes_per_s", values.nbytes / back_s)
