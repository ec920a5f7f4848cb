"""Relays: places at them, connections through them, and those that are of no use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from swarmrt.errors import RunError
from swarmrt.runtime.carriers.carriers import Connection
from swarmrt.runtime.carriers.libp2p import Libp2pCarrier
from swarmrt.runtime.daemon.daemon import Daemon
from swarmrt.runtime.daemon.reserving import PROTOCOL, _parse, reserve
from swarmrt.runtime.reach.multiaddrs import CIRCUIT
from swarmrt.runtime.reach.place import Place, Standing

STARTS = 6


@asynccontextmanager
async def daemons(*standings: Standing) -> AsyncIterator[list[Daemon]]:
    """On this machine, whatever they believe of it."""
    async with AsyncExitStack() as stack:
        started = []
        for standing in standings:
            daemon = await Daemon.start(None, Place(), [], standing)
            stack.push_async_callback(daemon.close)
            started.append(daemon)
        yield started


def test_public_daemon_always_relays_as_much_as_training_takes() -> None:
    """Its other service, which ends connections after 128 KiB, never comes last."""

    async def story() -> None:
        async with daemons(Standing.BEHIND) as [asker]:
            for _ in range(STARTS):
                async with daemons(Standing.PUBLIC) as [relay]:
                    await asker.connect(relay.peer_id, relay.addresses())
                    await reserve(*await asker.open_stream(relay.peer_id, PROTOCOL))

    asyncio.run(story())


def test_daemon_behind_a_router_is_no_relay() -> None:
    async def story() -> None:
        async with daemons(Standing.BEHIND, Standing.BEHIND) as [asker, other]:
            await asker.connect(other.peer_id, other.addresses())
            with pytest.raises(RunError, match="ends connections after 131072 bytes"):
                await reserve(*await asker.open_stream(other.peer_id, PROTOCOL))

    asyncio.run(story())


def test_link_goes_through_a_relay_by_an_announced_address() -> None:
    async def story() -> None:
        behind = Standing.BEHIND
        async with daemons(Standing.PUBLIC, behind, behind) as [relay, one, two]:
            for daemon in (one, two):
                await daemon.connect(relay.peer_id, relay.addresses())
            await reserve(*await one.open_stream(relay.peer_id, PROTOCOL))
            came: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
            await Libp2pCarrier(one).start(came.set_result)
            address = f"{relay.addresses()[0]}{CIRCUIT}/p2p/{one.peer_id}"
            dialed = await Libp2pCarrier(two).dial(one.peer_id, [address])
            incoming = await came
            assert (dialed.peer, incoming.peer) == (one.peer_id, two.peer_id)
            assert incoming.host() is None  # the relay's address is not the peer's own
            assert await two.is_relayed(one.peer_id)
            assert not await two.is_relayed(relay.peer_id)
            for connection in (dialed, incoming):
                connection.abort()

    asyncio.run(story())


@pytest.mark.parametrize(
    "address",
    ["/p2p-circuit", "/ip4/1.2.3.4/tcp/1/p2p-circuit", "/ip4/1.2.3.4/tcp/1/p2p/x/p2p-circuit/a"],
)
def test_nonsense_about_relays_is_an_error_like_any_other(address: str) -> None:
    async def story() -> None:
        async with daemons(Standing.HERE, Standing.HERE) as [daemon, other]:
            with pytest.raises(RunError, match="cannot connect"):
                await daemon.connect(other.peer_id, [address])

    asyncio.run(story())


def test_answers_of_relays_may_be_nonsense() -> None:
    assert _parse(b"\x08\x02\x28\x64\x22\x03\x10\x80\x01") == {1: 2, 5: 100, 4: b"\x10\x80\x01"}
    for nonsense in (b"\x08", b"\xff" * 30, b"\x0d\x01\x02\x03\x04", b"\x09"):
        with pytest.raises(RunError):
            _parse(nonsense)
