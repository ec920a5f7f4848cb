"""Beacons over UDP: sealed, answered, and over the link as well while nobody answers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from swarmrt.errors import WireError
from swarmrt.ids import PeerId
from swarmrt.messages import Beacon, Finish, Message
from swarmrt.runtime.carriers.beacons import UNANSWERED, Beacons
from swarmrt.runtime.faults.faults import LinkFaults
from swarmrt.runtime.reach.addresses import parse_address
from swarmrt.wire.datagrams import MAX_BYTES, Key, key_name
from swarmrt.wire.kinds import Hello
from swarmrt.wire.versions import SPEAKS
from tests.runtime.links.test_links import run, until

HERE, THERE = PeerId("here"), PeerId("there")
HOST = ("127.0.0.1",)


def beacon(done: int) -> Beacon:
    return Beacon(1, 1, 0, "serving", 3, "d" * 32, -1, 7, 1.5, 2, done, 0.25)


class End:
    def __init__(self) -> None:
        self.got: list[tuple[PeerId, Message]] = []
        self.faults = LinkFaults()
        self.beacons = Beacons(HOST, HOST, self._got, self.faults)

    def _got(self, sender: PeerId, message: Message, tensors: object) -> None:
        self.got.append((sender, message))

    def hello(self, key: Key) -> Hello:
        return Hello(*SPEAKS, "run", key.secret.hex(), tuple(self.beacons.addresses()), "", "")


@asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[End, End]]:
    """That have greeted each other on a link."""
    here, there = End(), End()
    await here.beacons.start()
    await there.beacons.start()
    ours, theirs = here.beacons.offer(THERE), there.beacons.offer(HERE)
    here.beacons.agree(ours, there.hello(theirs.ours))
    there.beacons.agree(theirs, here.hello(ours.ours))
    try:
        yield here, there
    finally:
        await here.beacons.close()
        await there.beacons.close()


async def until_it_arrives(here: End, done: int) -> None:
    async def send() -> None:
        nonlocal done
        while not here.beacons.send(THERE, beacon(done)):
            done += 1
            await asyncio.sleep(0.05)

    async with asyncio.timeout(30):
        await send()


def test_link_is_not_needed_once_beacons_are_answered() -> None:
    async def story() -> None:
        async with two_ends() as (here, there):
            assert not here.beacons.send(THERE, beacon(1))
            await until(lambda: there.got)
            assert there.got == [(HERE, beacon(1))]
            await until_it_arrives(here, 2)
            assert not here.got

    run(story())


def test_silence_brings_back_the_link() -> None:
    async def story() -> None:
        async with two_ends() as (here, there):
            await until_it_arrives(here, 1)
            await there.beacons.close()
            sent = [here.beacons.send(THERE, beacon(n)) for n in range(UNANSWERED + 2)]
            assert not sent[-1]

    run(story())


def test_without_an_agreement_the_link_is_needed() -> None:
    async def story() -> None:
        async with two_ends() as (here, _):
            assert not here.beacons.send(PeerId("stranger"), beacon(1))
            agreement = here.beacons.offer(PeerId("modest"))
            here.beacons.agree(agreement, Hello(*SPEAKS, "run", "", (), "", ""))
            assert not here.beacons.send(PeerId("modest"), beacon(1))

    run(story())


def test_cut_and_slow_links_have_no_beacons() -> None:
    async def story() -> None:
        async with two_ends() as (here, there):
            await until_it_arrives(here, 1)
            await until(lambda: there.got)
            here.faults.slow(THERE, delay_s=1, seconds=3600)
            assert not here.beacons.send(THERE, beacon(2))
            there.faults.cut(HERE, seconds=3600)
            got = len(there.got)
            here.faults.slow(THERE, delay_s=1, seconds=1e-9)
            here.beacons.send(THERE, beacon(3))
            await asyncio.sleep(0.2)
            assert len(there.got) == got

    run(story())


def test_nothing_is_replayed_or_forged() -> None:
    async def story() -> None:
        async with two_ends() as (here, there):
            stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            address = parse_address(there.beacons.addresses()[0])
            key = there.beacons._by_peer[HERE][0].ours
            new, old = key.seal(5, beacon(5)), key.seal(4, beacon(4))
            damaged = bytearray(key.seal(9, beacon(9)))
            damaged[-20] ^= 1
            other = Key.new().seal(9, beacon(9))
            finish = key.seal(8, Finish("is no beacon"))
            for datagram in (b"", b"x" * 40, bytes(damaged), other, finish, new, old, new):
                stranger.sendto(datagram, address)
            stranger.sendto(key.seal(10, beacon(10)), address)
            await until(lambda: len(there.got) == 2)
            assert [m.done for _, m in there.got if isinstance(m, Beacon)] == [5, 10]
            stranger.close()

    run(story())


def test_forgotten_key_opens_nothing() -> None:
    async def story() -> None:
        async with two_ends() as (here, there):
            there.beacons.forget(there.beacons._by_peer[HERE][0])
            here.beacons.send(THERE, beacon(1))
            await asyncio.sleep(0.2)
            assert not there.got and not there.beacons._by_key

    run(story())


@pytest.mark.parametrize(
    ("key", "addresses"),
    [("xyz", ()), ("ab", ()), ("00" * 32, ("host:1",)), ("00" * 32, ("1.2.3.4:5",) * 9)],
)
def test_nonsense_in_a_hello(key: str, addresses: tuple[str, ...]) -> None:
    beacons = Beacons(HOST, HOST, lambda *_: None)
    with pytest.raises(WireError):
        beacons.agree(beacons.offer(THERE), Hello(*SPEAKS, "run", key, addresses, "", ""))


def test_datagrams() -> None:
    key = Key.new()
    datagram = key.seal(7, beacon(1))
    assert len(datagram) < MAX_BYTES / 4 and key_name(datagram) == key.name
    assert key.open(datagram) == (7, beacon(1))
    assert key.open(key.seal(8, None)) == (8, None)
    for broken in (b"", datagram[:-1], datagram + b"x", b"y" + datagram[1:]):
        with pytest.raises(WireError):
            key.open(broken)
    assert key_name(b"short") is None and key_name(bytes(MAX_BYTES + 1)) is None
