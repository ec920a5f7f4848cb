"""Peers and trainers that speak no common version of the protocol."""

from __future__ import annotations

import asyncio
import time

import pytest

from swarmrt.config_toml import parse_config
from swarmrt.runtime.directory.network import open_network
from swarmrt.trust.joining_line import JoinLine
from swarmrt.wire.versions import SPEAKS, Versions
from tests.papers import Owner
from tests.processes import PATIENCE_S, swarmrt
from tests.runtime.links.test_links import End, run

pytestmark = pytest.mark.swarm

LATER = Versions(SPEAKS.most + 2, SPEAKS.most + 3)
CONFIG = {"run": {"name": "later"}, "model": {"layers": 2}, "stages": {"layers": [1, 1]}}


@pytest.mark.parametrize("waits", [(), ("--wait",)])
def test_a_peer_that_does_not_understand_the_trainer_ends_and_says_so(
    waits: tuple[str, ...],
) -> None:
    async def story() -> None:
        owner, config = Owner("later"), parse_config(CONFIG, "test").model_dump(mode="json")
        async with open_network((), papers=owner.node()) as network:
            trainer = End(network, "auto", run=str(owner.run), speaks=LATER)
            await trainer.links.start()
            at, direct = network.daemon.addresses(), trainer.links.addresses("direct")
            until = time.time() + PATIENCE_S
            published = owner.signer.published(network.me, 1, config, at, direct, until)
            await network.directory.publish_run(owner.run, published, published, ttl_s=PATIENCE_S)
            line = JoinLine(owner.run, tuple(at))
            done = await asyncio.to_thread(swarmrt, "serve", line, "--stage", 0, *waits)
            await trainer.links.close()
        why = (
            "the run's trainer is not understood: this process speaks version "
            f"{SPEAKS} of the protocol, the other end {LATER}: update swarmrt of this process"
        )
        assert done.returncode == 1, done
        assert done.stderr.splitlines()[-1].endswith(why), done.stderr
        assert "Traceback" not in done.stderr

    run(story())
