"""A bounded downlink: bytes are counted as they are read, and what is urgent is read first."""

from __future__ import annotations

import asyncio

import pytest
import torch

from swarmrt.messages import Finish, Part
from swarmrt.runtime.limits.downlink import Downlink
from swarmrt.wire.frames import CHUNK_BYTES
from swarmrt.wire.ranks import CONTROL, PARTS, STATE, WORK
from tests.runtime.limits.test_uplink import ShortLoop
from tests.runtime.links.test_links import Link, both_carriers, run, two_ends, until

RATE = 4e6  # bytes a second
BULK = torch.zeros(1 << 20, dtype=torch.uint8)
NUMBER = 8


@both_carriers
def test_links_bring_no_more_than_they_may(link: Link) -> None:
    """Without a bound all of it came at once. What the system's buffers take is no more."""

    async def story() -> None:
        async with two_ends(link) as (first, second):
            downlink = second.links._downlink = Downlink(RATE)
            began = asyncio.get_running_loop().time()
            for number in range(NUMBER):
                first.links.send(second.me, Part(1, 1, 1, number, False), [BULK])
            await until(lambda: len(second.got) == NUMBER)
            elapsed_s = asyncio.get_running_loop().time() - began
            most_ahead = downlink.burst_bytes + 2 * CHUNK_BYTES
            assert NUMBER * len(BULK) <= most_ahead + RATE * elapsed_s
            first.links.send(second.me, Finish("control"))
            await until(lambda: second.messages()[-1] == Finish("control"))

    run(story())


class Connection:
    """A connection on which frames of one rank come for ever."""

    def __init__(self, rank: int, downlink: Downlink, read: list[int]) -> None:
        self.rank, self._downlink, self._read = rank, downlink, read

    def hold(self) -> None:
        """It waits."""

    def go_on(self) -> None:
        self._read.append(self.rank)
        self._downlink.came(self, CHUNK_BYTES, self.rank)


def read_first(*ranks: int, number: int) -> list[int]:
    """Return the ranks of what is read, of connections on which always more waits."""

    async def story() -> list[int]:
        downlink, read = Downlink(RATE), list[int]()
        connections = [Connection(rank, downlink, read) for rank in ranks]
        downlink.came(connections[0], int(2 * RATE), CONTROL)  # so that all wait
        for connection in connections:
            downlink.came(connection, CHUNK_BYTES, connection.rank)
        while len(read) < number:
            await asyncio.sleep(0.01)
        return read[:number]

    with asyncio.Runner(loop_factory=ShortLoop) as runner:
        return runner.run(story())


def test_activations_are_read_before_rounds_and_these_before_state() -> None:
    read = read_first(STATE, PARTS, WORK, number=96)
    shares = [read.count(rank) / len(read) for rank in (WORK, PARTS, STATE)]
    assert shares[0] > 0.6 and shares == pytest.approx([0.66, 0.09, 0.25], abs=0.03)
    assert read[0] == WORK


def test_equals_are_read_in_turn() -> None:
    assert read_first(STATE, STATE, number=8) == [STATE] * 8


def test_who_is_gone_is_not_waited_for() -> None:
    async def story() -> None:
        downlink, read = Downlink(RATE), list[int]()
        gone, stays = (Connection(rank, downlink, read) for rank in (WORK, STATE))
        for connection in (gone, stays):
            downlink.came(connection, CHUNK_BYTES, connection.rank)
            downlink.came(connection, CHUNK_BYTES, connection.rank)
        downlink.forget(gone)
        while not read:
            await asyncio.sleep(0.01)
        assert read == [STATE]

    with asyncio.Runner(loop_factory=ShortLoop) as runner:
        runner.run(story())
