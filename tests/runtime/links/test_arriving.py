"""Joining at addresses that may not answer, and being dialed back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from swarmrt.errors import DirectoryError
from swarmrt.ids import PeerId
from swarmrt.messages import DialBack, DialedBack
from swarmrt.runtime.access.identity import open_identity
from swarmrt.runtime.carriers.direct import DirectCarrier
from swarmrt.runtime.daemon.daemon import Daemon
from swarmrt.runtime.links import arriving
from swarmrt.runtime.links.arriving import arrive
from swarmrt.runtime.links.first_contact import MULTISTREAM, answering
from swarmrt.runtime.reach.dialing_back import EVERY_S, RATE_OF_ALL, DialsBack, datagram
from swarmrt.runtime.reach.place import Place

ASKER = PeerId("QmUvmcYDDGE1hcwzsGbguEV8NYP179bwfSYtZezJcTMxgt")


class Directory:
    """Of which only some addresses answer, after some tries."""

    def __init__(self, *answering: str, after: int = 0) -> None:
        self._answering, self._after = answering, after
        self.tried: list[list[str]] = []

    async def enter(self, addresses: Sequence[str]) -> str:
        self.tried.append(list(addresses))
        found = [a for a in addresses if a in self._answering]
        if addresses and (not found or len(self.tried) <= self._after):
            raise DirectoryError(f"no directory answers at {', '.join(addresses)}")
        return found[0] if found else "alone"


def test_remembered_addresses_are_tried_beside_those_that_are_given() -> None:
    directory = Directory("old")
    assert asyncio.run(arrive(directory.enter, ["given"], ["old", "given"])) == "old"
    assert directory.tried == [["given", "old"]]


def test_whoever_is_given_no_address_and_finds_nobody_is_the_first() -> None:
    directory = Directory()
    assert asyncio.run(arrive(directory.enter, [], ["old"])) == "alone"
    assert directory.tried == [["old"], []]


def test_a_dead_address_is_an_error_unless_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(DirectoryError):
        asyncio.run(arrive(Directory().enter, ["given"], ["old"]))
    monkeypatch.setattr(arriving, "FIRST_PAUSE_S", 0.001)
    said: list[str] = []
    directory = Directory("given", after=4)
    assert asyncio.run(arrive(directory.enter, ["given"], say=said.append)) == "given"
    assert len(directory.tried) == 5
    assert said == ["waiting: no directory answers at given"]  # and again after half a minute


class Hosts:
    """Sockets that are dialed. Those that speak do so once all have been dialed."""

    def __init__(self) -> None:
        self._servers: list[asyncio.Server] = []
        self._dialed = 0
        self._all_are = asyncio.Event()

    async def add(self, *, speaks: bool) -> str:
        async def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._dialed += 1
            if self._dialed == len(self._servers):
                self._all_are.set()
            await self._all_are.wait()
            if speaks:
                writer.write(MULTISTREAM)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(came, "127.0.0.1", 0)
        self._servers.append(server)
        port = server.sockets[0].getsockname()[1]
        return f"/ip4/127.0.0.1/tcp/{port}/p2p/{ASKER}"

    async def close(self) -> None:
        for server in self._servers:
            server.close()
            await server.wait_closed()


def test_of_many_addresses_those_that_answer_are_found_together() -> None:
    """Twenty hosts say nothing, two ports are closed, and the one that answers is dialed last."""

    async def story() -> None:
        hosts, others = Hosts(), Hosts()
        silent = [await hosts.add(speaks=False) for _ in range(20)]
        closed = [await others.add(speaks=False) for _ in range(2)]
        await others.close()
        there = await hosts.add(speaks=True)
        name = f"/dns4/example.invalid/tcp/1/p2p/{ASKER}"  # only a daemon asks name servers
        assert await answering([*silent, *closed, name, there]) == [name, there]
        assert await answering(closed) == []
        assert await answering(silent[:1]) == silent[:1], "there is nothing to choose"
        await hosts.close()

    asyncio.run(story())


def test_a_daemon_does_not_wait_for_those_that_do_not_answer(tmp_path: Path) -> None:
    """It is up with the one that does, and what is given is tried though nobody answers."""

    async def nobody(addresses: Sequence[str]) -> list[str]:
        return []

    async def story() -> None:
        daemon = await Daemon.start(None, Place(), [])
        hosts = Hosts()
        silent = [await hosts.add(speaks=False) for _ in range(4)]
        joined: list[Sequence[str]] = []

        async def enter(addresses: Sequence[str]) -> Daemon:
            joined.append(addresses)
            return await Daemon.start(None, Place(), addresses)

        other = await arrive(enter, silent[:1], [*silent[1:], *daemon.addresses()])
        assert joined == [daemon.addresses()]
        await other.close()
        await hosts.close()
        await daemon.close()

    asyncio.run(story())
    directory = Directory("given")
    assert asyncio.run(arrive(directory.enter, ["given"], ["old"], look=nobody)) == "given"
    assert directory.tried == [["given"]]


class Asked:
    def __init__(self, direct: DirectCarrier | None = None) -> None:
        self.now = 0.0
        self.answers: list[DialedBack] = []
        self._dials = DialsBack(direct, lambda _, said: self.answers.append(said), lambda: self.now)

    async def ask(self, wanted: DialBack, host: str | None, peer: PeerId = ASKER) -> DialedBack:
        await self._dials.answer(peer, wanted, host)
        return self.answers[-1]


def test_nobody_is_dialed_back_through_a_relay_or_too_often() -> None:
    async def story() -> None:
        asked = Asked()
        nothing = DialBack(1, 0, 0, 0)
        assert await asked.ask(nothing, None) == DialedBack(1, "", False, False, True)
        assert await asked.ask(nothing, "127.0.0.1") == DialedBack(
            1, "127.0.0.1", False, False, True
        )
        assert not (await asked.ask(nothing, "127.0.0.1")).affordable
        asked.now += EVERY_S
        assert (await asked.ask(nothing, "127.0.0.1")).affordable

    asyncio.run(story())


def test_one_asker_takes_dialing_back_from_nobody_else() -> None:
    """It was one request in five seconds, whoever asked."""

    async def story() -> None:
        asked, nothing = Asked(), DialBack(1, 0, 0, 0)
        for _ in range(100):
            await asked.ask(nothing, "192.0.2.1")
        assert sum(answer.affordable for answer in asked.answers) == 1
        assert (await asked.ask(nothing, "192.0.2.2")).affordable
        for number in range(100):  # many together are bounded
            await asked.ask(nothing, f"198.51.100.{number}")
        assert sum(answer.affordable for answer in asked.answers) == RATE_OF_ALL.most

    asyncio.run(story())


def test_dialing_back_finds_what_is_there_and_nothing_else(tmp_path: Path) -> None:
    async def story() -> None:
        daemon = await Daemon.start(None, Place(), [])
        carrier = DirectCarrier(daemon.identity)
        await carrier.start(lambda connection: connection.close())
        came = asyncio.get_running_loop().create_future()

        class Heard(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, address: object) -> None:
                if not came.done():
                    came.set_result(data)

        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            Heard, local_addr=("127.0.0.1", 0)
        )
        libp2p = int(daemon.addresses()[0].split("/")[4])
        direct = int(carrier.addresses()[0].rpartition(":")[2])
        udp = transport.get_extra_info("sockname")[1]
        dialer = DirectCarrier(open_identity(tmp_path / "dialer"))
        asked = Asked(dialer)
        right = DialBack(7, libp2p, direct, udp)
        said = await asked.ask(right, "127.0.0.1", daemon.peer_id)
        assert said == DialedBack(7, "127.0.0.1", True, True, True)
        assert await came == datagram(7)
        asked.now += EVERY_S
        swapped = DialBack(8, direct, libp2p, 0)  # ports at which something else answers
        assert not (await asked.ask(swapped, "127.0.0.1", daemon.peer_id)).direct
        asked.now += EVERY_S
        assert not (await asked.ask(right, "127.0.0.1", ASKER)).direct  # another one is there
        transport.close()
        await carrier.close()
        await daemon.close()

    asyncio.run(story())
