"""A libp2p daemon that is killed is started again, and what does not go through it goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from swarmrt.errors import DirectoryError, RunError
from swarmrt.messages import Finish
from swarmrt.runtime.daemon import restarting
from swarmrt.runtime.daemon.daemon import Daemon
from swarmrt.runtime.directory.network import Network, open_network
from swarmrt.runtime.reach.place import Place, Ports
from tests.papers import Owner
from tests.processes import daemon_with
from tests.runtime.directory.test_directory import published
from tests.runtime.links.test_links import End, run, until


def kill_daemon(network: Network) -> None:
    os.kill(daemon_with(str(network.daemon._process.folder)), signal.SIGKILL)


@asynccontextmanager
async def kept_up(network: Network) -> AsyncIterator[None]:
    keeping = asyncio.create_task(network.keep_up())
    try:
        yield
        assert not keeping.done(), keeping
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def returned(network: Network, before: object) -> None:
    await until(lambda: network.daemon._process is not before and network.directory.known())


@pytest.mark.parametrize("which", ["where others join", "who joins"])
def test_it_has_the_same_name_and_place_and_finds_the_others_again(which: str) -> None:
    """Records that were written before are still found, and new ones are taken."""

    async def story() -> None:
        owner = Owner()
        async with open_network([], papers=owner.node()) as first:
            at = first.daemon.addresses()
            async with open_network(at, papers=owner.guest()) as second:
                await first.directory.publish_run(owner.run, *published(owner, first), ttl_s=60)
                dies, stays = (first, second) if which == "where others join" else (second, first)
                async with kept_up(dies):
                    await until(dies.daemon.seen)
                    before, its = dies.daemon._process, dies.daemon.addresses()
                    kill_daemon(dies)
                    await before.wait()
                    with pytest.raises(DirectoryError, match="daemon of this process is gone"):
                        await dies.directory.find_run(owner.run)
                    await returned(dies, before)
                    assert dies.daemon.addresses() == its
                    for network in (dies, stays):
                        assert await network.directory.find_run(owner.run) is not None
                    await stays.daemon.connect(dies.me, its)

    run(story())


def test_direct_links_do_not_notice_and_others_are_opened_again() -> None:
    async def story() -> None:
        async with open_network([]) as first, open_network(first.daemon.addresses()) as second:
            direct, libp2p = (End(first, "direct"), End(first, "libp2p"))
            ends = (End(second, "direct"), End(second, "libp2p"))
            for end in (direct, libp2p, *ends):
                await end.links.start()
            ends[0].links.know(first.me, direct.addresses())
            ends[1].links.know(first.me, libp2p.addresses())
            async with kept_up(first):
                for end in ends:
                    end.links.send(first.me, Finish("before"))
                await until(lambda: direct.got and libp2p.got)
                before = first.daemon._process
                kill_daemon(first)
                await until(lambda: ends[1].lost)
                ends[0].links.send(first.me, Finish("meanwhile"))
                await until(lambda: len(direct.got) == 2)
                await returned(first, before)

                async def again() -> None:
                    while len(libp2p.got) < 2:
                        ends[1].links.send(first.me, Finish("again"))
                        await asyncio.sleep(0.1)

                await asyncio.wait_for(again(), 60)
                assert not direct.lost and not ends[0].lost
            for end in (direct, libp2p, *ends):
                await end.links.close()

    run(story())


def test_one_whose_port_somebody_else_has_got_goes_on_at_another(tmp_path: Path) -> None:
    async def story() -> None:
        daemon = await Daemon.start(None, Place(), [])
        try:
            [its] = daemon.addresses()
            await daemon._process.close()
            with socket.create_server(("127.0.0.1", int(its.split("/")[4]))):
                await daemon.start_again()
            [others] = daemon.addresses()
            assert others != its and others.rpartition("/")[2] == daemon.peer_id
        finally:
            await daemon.close()

    run(story())


def test_one_that_cannot_be_started_again_ends_the_process_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restarting, "PATIENCE_S", 1.0)
    monkeypatch.setattr(restarting, "FIRST_PAUSE_S", 0.1)

    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
        async with open_network([], Place(ports=Ports(port, 0, 0))) as network:
            keeping = asyncio.create_task(network.while_up(asyncio.Event().wait()))
            await until(lambda: not network.daemon.is_gone)
            await network.daemon._process.close()
            with socket.create_server(("127.0.0.1", port)):
                why = f"not be started again within 1 s: somebody else listens at its port {port}"
                with pytest.raises(RunError, match=f"of this process is gone, and could {why}"):
                    await asyncio.wait_for(keeping, 60)

    run(story())
