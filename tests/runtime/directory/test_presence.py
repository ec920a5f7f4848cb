"""What a peer learns of others from the directory."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest

from swarmrt.config import RunConfig
from swarmrt.runtime.access.door import UnguardedDoor
from swarmrt.runtime.directory.network import Network, open_network
from swarmrt.runtime.directory.presence import Abilities, Presence
from swarmrt.runtime.directory.records import Intent
from swarmrt.runtime.links.links import Links
from swarmrt.scheduler.instructions import Announce
from tests.papers import Owner
from tests.runtime.directory.test_directory import record
from tests.runtime.links.test_links import run, until


def quiet_links(network: Network) -> Links:
    return Links(
        network.carriers("auto"),
        UnguardedDoor("test"),
        1 << 20,
        on_message=lambda peer, message, tensors: None,
        on_lost=lambda peer, reason: None,
        on_send_failed=lambda peer, message: None,
    )


@pytest.mark.parametrize(("is_spare", "intents"), [(False, []), (True, [Intent(what="spare")])])
def test_peer_tells_what_it_can_do(is_spare: bool, intents: list[Intent]) -> None:
    async def story() -> None:
        owner = Owner()
        async with open_network([], papers=owner.node()) as network:
            papers = owner.guest()
            papers.membership = owner.signer.membership(network.me, (1,), time.time() + 600)
            abilities = Abilities("cpu", 1000, lambda: 250.0, is_spare)
            links = quiet_links(network)
            presence = Presence(RunConfig(), 1, network, links, papers, abilities)
            presence.announce(Announce("serving", 3))
            async with asyncio.TaskGroup() as tasks:
                keeping = tasks.create_task(presence.keep_announced())
                while not (found := await network.directory.peers(owner.run, 1)):
                    await asyncio.sleep(0.01)
                keeping.cancel()
            [told] = found
            assert (told.device, told.state_bytes, told.tokens_per_s) == ("cpu", 1000, 250.0)
            assert told.codecs == ["bfloat16", "int8"] and told.intents == intents

    run(story())


@pytest.mark.parametrize(("stage", "learns"), [(0, {0, 1}), (1, {0, 1, 2}), (2, {1, 2})])
def test_peer_learns_where_those_on_both_sides_are(stage: int, learns: set[int]) -> None:
    """It knew of no peer of the stage before: a gradient could not go back when a link broke."""

    async def story() -> None:
        owner = Owner()
        async with open_network([], papers=owner.node()) as network:
            at = network.daemon.addresses()
            for there in sorted(learns):
                async with open_network(at, papers=owner.guest()) as other:
                    membership = owner.signer.membership(other.me, (there,), time.time() + 600)
                    changes = {"stage": there, "membership": membership, "status": "leaving"}
                    await other.directory.announce(owner.run, record(owner, other, **changes), 30)
                    links = quiet_links(network)
                    presence = Presence(RunConfig(), stage, network, links, owner.guest())
                    async with asyncio.TaskGroup() as tasks:
                        watches = [tasks.create_task(watch) for watch in presence.watches()]
                        await until(partial(links.known_addresses, other.me, "libp2p"))
                        for watch in watches:
                            watch.cancel()
                    assert len(watches) == len(learns)

    run(story())
