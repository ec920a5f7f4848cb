"""Tensors between the network's memory and the device, beside what is computed there.

For CUDA, copies run on a stream of their own and through pinned memory, so that the device computes
one microbatch while the next one comes in and the last one goes out. A computation waits, on the
device, for its own input only. Elsewhere nothing is copied that need not be, and nothing waits.

What keeps memory from being used again too early: torch's allocator of pinned memory holds a block
until the asynchronous copies that touch it are done, and `record_stream` tells the device's
allocator that a tensor is used on another stream than the one which it was allocated on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple, TypeVar

import torch

from swarmrt.runtime.process.aside import Aside

T = TypeVar("T")


class OnDevice(NamedTuple):
    """A tensor whose copy to the device has been queued; `ready` is recorded behind it."""

    tensor: torch.Tensor
    ready: torch.cuda.Event | None


class Leaving(NamedTuple):
    """A tensor on its way to the host: not to be read before `ready`, which is None for none."""

    host: torch.Tensor
    ready: torch.cuda.Event | None

    def wait(self) -> torch.Tensor:
        """The tensor on the host. Blocks the thread, not the device and not other threads.

        Frames are retained for a whole step, and pinned memory is for the way only: what came
        through it is copied once more.
        """
        if self.ready is None:
            return self.host
        self.ready.synchronize()
        return self.host.clone()


class Arriving:
    """A tensor on its way to the device."""

    def __init__(self, copy: Future[OnDevice] | OnDevice) -> None:
        self._copy = copy

    def take(self) -> torch.Tensor:
        """The tensor, for the current stream. Raises what went wrong on the way."""
        copy = self._copy.result() if isinstance(self._copy, Future) else self._copy
        if copy.ready is not None:
            stream = torch.cuda.current_stream(copy.tensor.device)
            stream.wait_event(copy.ready)
            copy.tensor.record_stream(stream)
        return copy.tensor


class Computation:
    """A computation that a thread has the device do, from here until `end`, and how long that takes
    there.

    On CUDA a computation is only queued when the call returns that asked for it.
    """

    def __init__(self, device: torch.device) -> None:
        self._started = time.perf_counter()
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.current_stream(device)
            self._first = self._stream.record_event(_event(timed=True))

    def end(self) -> None:
        """Take note that all of it has been asked for."""
        if self._stream is None:
            self._seconds = time.perf_counter() - self._started
        else:
            self._last = self._stream.record_event(_event(timed=True))

    @property
    def is_queued(self) -> bool:
        """True if it may go on after `end`."""
        return self._stream is not None

    def seconds(self) -> float:
        """Return how many seconds it took, after `end`. Blocks the thread until it is over."""
        if self._stream is None:
            return self._seconds
        self._last.synchronize()
        return float(self._first.elapsed_time(self._last)) / 1e3


def _event(*, timed: bool = False) -> torch.cuda.Event:
    """Return an event that a thread sleeps for. The usual kind keeps a whole core busy until it has
    come, and there is always a computation to wait for."""
    return torch.cuda.Event(enable_timing=timed, blocking=True)  # type: ignore[no-untyped-call]


class Transfers:
    """Copies for one device. `close` at the end."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream, self._reading = (_new_stream(device) for _ in range(2))
        self._copying = Aside("to-device")

    def to_device(self, tensor: torch.Tensor) -> Arriving:
        """Begin. Called on the event loop: what takes time is done on a thread. Elsewhere than on
        CUDA it is the tensor itself: whoever computes brings it where it is needed."""
        if self._stream is None:
            return Arriving(OnDevice(tensor, None))
        return Arriving(self._copying.submit(partial(self._copy_to_device, tensor, self._stream)))

    def _copy_to_device(self, tensor: torch.Tensor, stream: torch.cuda.Stream) -> OnDevice:
        pinned = tensor.pin_memory()
        with torch.cuda.stream(stream):
            there = pinned.to(self._device, non_blocking=True)
            return OnDevice(there, stream.record_event())

    def to_host(self, tensor: torch.Tensor) -> Leaving:
        """Begin to copy what the current stream computes, once it is computed."""
        tensor = tensor.detach().contiguous()
        if self._stream is None:
            return Leaving(tensor.cpu(), None)
        computed = torch.cuda.current_stream(self._device).record_event()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(computed)
            host.copy_(tensor, non_blocking=True)
            tensor.record_stream(self._stream)
            return Leaving(host, self._stream.record_event(_event()))

    def beside(self, work: Callable[[], T]) -> T:
        """Do the work on a stream of its own: what it copies does not wait for what is computed
        meanwhile. It may read what is known to be there, by the end of a `Computation`."""
        if self._reading is None:
            return work()
        with torch.cuda.stream(self._reading):
            return work()

    def close(self) -> None:
        """Wait for what is under way, for a while. Call it beside the loop: that may hang."""
        self._copying.close()


def _new_stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
