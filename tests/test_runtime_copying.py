"""Copies of a state beside what a stage computes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import torch

from swarmrt.runtime.copying import Copying
from swarmrt.runtime.snapshot import read_snapshot
from swarmrt.runtime.transfers import Transfers


class Slow(Mapping[str, torch.Tensor]):
    """A state that is not read before it may be."""

    def __init__(self, values: torch.Tensor) -> None:
        self._values = values
        self.may = threading.Event()

    def __getitem__(self, name: str) -> torch.Tensor:
        assert self.may.wait(10)
        return self._values

    def __iter__(self) -> Iterator[str]:
        return iter(["values"])

    def __len__(self) -> int:
        return 1


def test_what_changes_a_state_waits_for_its_copy() -> None:
    values = torch.ones(1000)
    state, copying = Slow(values), Copying(0, Transfers(torch.device("cpu")))
    copied = copying.begin(3, state)
    waiting = threading.Thread(target=copying.wait)
    waiting.start()
    assert waiting.is_alive() and not copied.done()
    state.may.set()
    waiting.join(10)
    values.zero_()
    assert torch.equal(read_snapshot(copied.result(), "it")["values"], torch.ones(1000))
    copying.wait()  # for nothing
    copying.close()
