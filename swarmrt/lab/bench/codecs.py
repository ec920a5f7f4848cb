"""The throughput of codecs and digests, beside copying the same values: on one thread of this
process.

A throughput is bytes of fp32 values a second, whatever the size of what they become. A ratio
`x_over_y` is the throughput of x divided by that of y in the same round, because the machine has
other things to do; `memcpy`, of the same values from one buffer to another, is measured anew right
before each of the others. What is told are medians over the rounds.
"""

from __future__ import annotations

import ctypes
import hashlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from hivemind.compression import CompressionInfo, Uniform8BitQuantization
from hivemind.proto.runtime_pb2 import Tensor

from swarmrt.kernels import reference
from swarmrt.kernels.codecs import Bf16Codec, Codec, Int8Codec
from swarmrt.kernels.digest import digest
from swarmrt.kernels.dispatch import describe

FP32_BYTES = 4
BLOCK = Int8Codec().block
OTHERS = [
    ("int8", "torch"),
    ("int8", "hivemind"),
    ("int8_encode", "hivemind_encode"),
    ("digest", "digest_torch"),
    ("digest", "sha256"),
]
OVER_MEMCPY = ("int8_", "bf16_", "digest")

Ways = dict[str, Callable[[], object]]


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _ways(values: torch.Tensor) -> Ways:
    """Return what is measured, by name. All but hivemind's write into buffers that exist
    already."""
    ways: Ways = {}
    copy = values.clone()
    ways["memcpy"] = lambda: ctypes.memmove(copy.data_ptr(), values.data_ptr(), values.nbytes)
    for name, codec in (("int8", Int8Codec()), ("bf16", Bf16Codec())):
        ways |= _ways_of(name, codec, values)
    ways |= _ways_of_torch(values)
    ways |= _ways_of_digests(values)
    ways |= _ways_of_hivemind(values)
    return ways


def _ways_of(name: str, codec: Codec, values: torch.Tensor) -> Ways:
    encoded, residual = codec.encode(values), torch.zeros_like(values)
    out, total = torch.zeros_like(values), torch.zeros_like(values)

    def both() -> None:
        codec.encode(values, out=encoded)
        codec.decode(encoded, out)

    return {
        f"{name}_encode": lambda: codec.encode(values, out=encoded),
        f"{name}_encode_feedback": lambda: codec.encode(values, residual=residual, out=encoded),
        f"{name}_decode": lambda: codec.decode(encoded, out),
        f"{name}_accumulate": lambda: codec.decode_accumulate(encoded, total),
        name: both,
    }


def _ways_of_torch(values: torch.Tensor) -> Ways:
    """The int8 codec as it is where nothing could be compiled."""
    scales = torch.zeros(-(-len(values) // BLOCK))
    codes, out = torch.zeros(len(values), dtype=torch.int8), torch.zeros_like(values)

    def both() -> None:
        reference.encode_int8(values, scales, codes, BLOCK, None, None)
        reference.decode_int8(scales, codes, out, BLOCK)

    return {"torch": both}


def _ways_of_digests(values: torch.Tensor) -> Ways:
    """Return ways that all read only."""
    data = values.view(torch.uint8)
    return {
        "digest": lambda: digest(values),
        "digest_torch": lambda: reference.fingerprint(data),
        "sha256": lambda: hashlib.sha256(data.numpy().data).digest(),
    }


def _ways_of_hivemind(values: torch.Tensor) -> Ways:
    codec, info = Uniform8BitQuantization(), CompressionInfo.from_tensor(values)

    def compress() -> Tensor:
        with warnings.catch_warnings():  # of what a later torch will not have
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            return codec.compress(values, info)

    return {"hivemind_encode": compress, "hivemind": lambda: _extract(compress())}


def _extract(message: Tensor) -> torch.Tensor:
    """Do what `Uniform8BitQuantization.extract` does; that of hivemind 1.1.12 fails with numpy 2.4.

    The message is the codebook's length (int64), the codebook (fp32), and a place in it for each
    value (uint8).
    """
    length = int(np.frombuffer(message.buffer, np.int64, count=1)[0])
    codebook = np.frombuffer(message.buffer, np.float32, count=length, offset=8)
    places = np.frombuffer(message.buffer, np.uint8, offset=8 + codebook.nbytes)
    return torch.as_tensor(codebook.copy())[torch.as_tensor(places.astype(np.int64))]


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _round(ways: Ways) -> dict[str, float]:
    """Return the seconds of each way, and each ratio."""
    found: dict[str, float] = {}
    for name, work in ways.items():
        base = _seconds(ways["memcpy"])
        found[name] = _seconds(work)
        if name.startswith(OVER_MEMCPY):
            found[f"{name}_over_memcpy"] = base / found[name]
    for name, other in OTHERS:
        found[f"{name}_over_{other}"] = found[other] / found[name]
    return found


def measure(mebibytes: int, rounds: int) -> dict[str, float | str]:
    """Throughputs and ratios for normally distributed values of this size.

    `implementation` says what serves the codecs here. `int8` is encoding and decoding, as are
    `torch`, the same in eager torch, and `hivemind`, its Uniform8BitQuantization. `digest` is the
    fingerprint of parameters, `digest_torch` the same in eager torch.
    """
    count = (mebibytes << 20) // FP32_BYTES
    values = torch.randn(count, generator=torch.Generator().manual_seed(0))
    with _one_thread():
        ways = _ways(values)
        _round(ways)  # touches all memory, and is not counted
        found = [_round(ways) for _ in range(rounds)]
    medians = {name: statistics.median(r[name] for r in found) for name in found[0]}
    told: dict[str, float | str] = {"implementation": describe()["cpu"], "mebibytes": mebibytes}
    told |= {f"{name}_bytes_per_s": values.nbytes / medians[name] for name in ways}
    return told | {name: ratio for name, ratio in medians.items() if "_over_" in name}
