"""Copies of a state beside what a stage computes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping

import torch

from swarmrt.ids import PeerId
from swarmrt.messages import GetState, Message, NoState, StateChunk
from swarmrt.runtime.computing.transfers import Transfers
from swarmrt.runtime.state.copying import Copying, keep_copy
from swarmrt.runtime.state.offering import Shelf
from swarmrt.runtime.state.snapshot import read_snapshot


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


def answers_to_who_waits_for(state: Mapping[str, torch.Tensor]) -> list[Message]:
    """Return what somebody gets who has asked for a copy that is promised."""
    said: list[Message] = []

    async def story() -> None:
        copying, shelf = Copying(0, Transfers(torch.device("cpu"))), Shelf()
        shelf.promise(0, 3)
        request = GetState(0, 3, 0, 1000)
        shelf.answer(PeerId("newcomer"), request, lambda to, message, tensors: said.append(message))
        assert not said
        await keep_copy(shelf, 0, 3, copying.begin(3, state))
        copying.close()
        assert shelf.has(0, 3) == isinstance(said[0], StateChunk), "nothing is promised any more"

    asyncio.run(story())
    return said


def test_who_waits_for_a_copy_gets_it_or_is_told_that_there_was_no_memory() -> None:
    """What others ask for ends nobody's process."""
    small = {"values": torch.ones(1000)}
    too_large = {"values": torch.ones(1).expand(1 << 50)}  # four petabytes
    assert isinstance(answers_to_who_waits_for(small)[0], StateChunk)
    assert answers_to_who_waits_for(too_large) == [NoState(0, 3, 0)]
