"""Every draw of a run is a function of what it is for, never of who computes it.

Dropout masks depend on (seed, step, microbatch, layer). The layer and not the stage, so that
any cut of the model draws the same masks as the model in one piece.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from swarmrt.ids import MicrobatchId

Seed = int | str | bool


def seed_for(*parts: Seed) -> int:
    """Return 63 bits that depend on the parts alone: equal in every process, on every platform."""
    text = "\0".join([f"{type(part).__name__}:{part}" for part in parts])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Draw from this seed inside, and leave the process's generators as they were."""
    with _kept(device):
        _seed(seed, device)
        yield


@contextmanager
def building(seed: int) -> Iterator[None]:
    """Draw first weights from this seed inside, whichever generator a model uses: torch's, Python's
    or numpy's."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        with seeded(seed):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def drawing(
    seed: int, microbatch: MicrobatchId, device: torch.device | None = None
) -> Iterator[Callable[[int], None]]:
    """Call the given function inside with a layer's global index before running that layer."""
    step, index, held_out = microbatch
    prefix = seed_for(seed, "draw", step, index, held_out)

    def at_layer(layer: int) -> None:
        _seed(seed_for(prefix, layer), device)

    with _kept(device):
        yield at_layer


@contextmanager
def _kept(device: torch.device | None) -> Iterator[None]:
    """The process's generators are at the end as they were."""
    if _is_cpu(device):  # `fork_rng` takes twice as long, at every microbatch
        before = torch.default_generator.get_state()
        try:
            yield
        finally:
            torch.default_generator.set_state(before)
        return
    devices, kind = ([device], device.type) if device is not None else ([], "cuda")
    with torch.random.fork_rng(devices, device_type=kind):
        yield


def _seed(seed: int, device: torch.device | None) -> None:
    """Seed, on a CPU, only its own generator: asking for all other devices' takes 30 times as
    long."""
    if _is_cpu(device):
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _is_cpu(device: torch.device | None) -> bool:
    return device is not None and device.type == "cpu"
