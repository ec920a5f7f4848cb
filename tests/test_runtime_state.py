"""Getting a snapshot from donors, in one process: who gives what, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import torch

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.messages import GetState, Message, NoState, StateChunk
from swarmrt.runtime import state
from swarmrt.runtime.snapshot import Snapshot, digest_of, read_snapshot, write_snapshot
from swarmrt.runtime.state import CHUNK_BYTES, Fetches, Shelf

ME = PeerId("me")
MAX_BYTES = 64 << 20


def snapshot(fill: float = 1.0, chunks: float = 2.5) -> Snapshot:
    values = torch.full((int(chunks * CHUNK_BYTES / 4),), fill)
    data = write_snapshot(0, 3, {"values": values})
    return Snapshot(0, 3, data, digest_of(data))


class Donors:
    """Shelves behind links that deliver at once; some of them misbehave."""

    def __init__(self, shelves: dict[str, Shelf]) -> None:
        self.fetches = Fetches(self.send)
        self.asked: list[str] = []
        self.dead: set[str] = set()
        self.silent: set[str] = set()
        self._shelves = shelves

    def send(self, to: PeerId, message: Message, tensors: Sequence[torch.Tensor]) -> None:
        assert isinstance(message, GetState)
        self.asked.append(to)
        loop = asyncio.get_running_loop()
        if to in self.silent:
            return
        if to in self.dead:
            loop.call_soon(self.fetches.donor_lost, to, "is gone")
        else:
            loop.call_soon(self._shelves[to].answer, ME, message, self._answer_of(to))

    def _answer_of(self, donor: PeerId):  # type: ignore[no-untyped-def]
        def answer(to: PeerId, message: Message, tensors: Sequence[torch.Tensor]) -> None:
            if isinstance(message, NoState):
                self.fetches.refused(donor, message, "does not have it")
            else:
                assert isinstance(message, StateChunk)
                self.fetches.chunk_arrived(donor, message, tensors)

        return answer

    async def get(self, max_bytes: int = MAX_BYTES) -> Snapshot:
        donors = [PeerId(name) for name in self._shelves]
        return await self.fetches.get(0, 3, donors, max_bytes)


def shelf(*snapshots: Snapshot) -> Shelf:
    shelf = Shelf()
    for one in snapshots:
        shelf.put(one)
    return shelf


def test_donors_share_the_chunks() -> None:
    donors = Donors({"a": shelf(snapshot()), "b": shelf(snapshot())})
    got = asyncio.run(donors.get())
    assert got == snapshot() and set(donors.asked) == {"a", "b"}
    assert torch.equal(read_snapshot(got.data, "it")["values"][:2], torch.ones(2))


def test_dying_and_refusing_donors_are_made_up_for() -> None:
    donors = Donors({"a": shelf(snapshot()), "b": shelf(), "c": shelf(snapshot())})
    donors.dead.add("c")
    assert asyncio.run(donors.get()) == snapshot()


def test_donor_that_hangs_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "CHUNK_S", 0.01)
    donors = Donors({"a": shelf(snapshot()), "b": shelf(snapshot())})
    donors.silent.add("b")
    assert asyncio.run(donors.get()) == snapshot()
    donors.silent.add("a")
    with pytest.raises(RunError, match="has not answered"):
        asyncio.run(donors.get())


def test_donor_with_another_file_is_not_mixed_in() -> None:
    donors = Donors({"a": shelf(snapshot()), "b": shelf(snapshot(fill=2.0))})
    assert asyncio.run(donors.get()).digest in (snapshot().digest, snapshot(2.0).digest)


def test_nobody_has_it() -> None:
    with pytest.raises(RunError, match="there is no other donor"):
        asyncio.run(Donors({"a": shelf(), "b": shelf()}).get())
    with pytest.raises(RunError, match="nobody is known to have"):
        asyncio.run(Donors({}).get())


def test_file_that_is_larger_than_it_can_be_is_refused_before_it_is_allocated() -> None:
    with pytest.raises(RunError, match="which is too much"):
        asyncio.run(Donors({"a": shelf(snapshot())}).get(max_bytes=1 << 20))


def test_damaged_file_is_found_by_its_digest() -> None:
    good = snapshot()
    bad = Snapshot(0, 3, memoryview(bytearray(good.data[:-1]) + b"\x00"), good.digest)
    with pytest.raises(RunError, match="arrived damaged"):
        asyncio.run(Donors({"a": shelf(bad)}).get())


def test_who_asks_for_a_promised_snapshot_waits_for_it() -> None:
    async def story() -> Snapshot:
        waiting = Shelf()
        waiting.promise(0, 3)
        donors = Donors({"a": waiting})
        getting = asyncio.create_task(donors.get())
        while not donors.asked:
            await asyncio.sleep(0)
        waiting.put(snapshot())
        return await getting

    assert asyncio.run(story()) == snapshot()


def test_broken_promise_is_a_refusal() -> None:
    async def story() -> None:
        waiting = Shelf()
        waiting.promise(0, 3)
        donors = Donors({"a": waiting})
        getting = asyncio.create_task(donors.get())
        while not donors.asked:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.break_promise(0, 3)
        await getting

    with pytest.raises(RunError, match="does not have it"):
        asyncio.run(story())
