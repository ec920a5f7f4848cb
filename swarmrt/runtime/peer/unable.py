"""A process's word to the trainer that it cannot serve the run, before it has begun to."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import torch

from swarmrt.errors import SwarmError
from swarmrt.ids import PeerId
from swarmrt.messages import Message, Unable
from swarmrt.runtime.access.door import GuardedDoor
from swarmrt.runtime.directory.network import Network
from swarmrt.runtime.links.links import Links
from swarmrt.runtime.peer.causes import cause_of
from swarmrt.trust.statements import Published

log = logging.getLogger("swarmrt.unable")

TELL_S = 5.0  # to reach the trainer: the owner of this process waits for it
MAX_BYTES = 1 << 20  # of a message; this one is far smaller


@asynccontextmanager
async def telling_trainer(
    network: Network, run: Published, stages: Sequence[int]
) -> AsyncIterator[None]:
    """Tell the run's trainer of any error within, if it can be reached soon."""
    try:
        yield
    except Exception as error:
        try:
            await _tell(network, run, stages, cause_of(error))
        except (SwarmError, OSError) as another:
            log.warning("the trainer could not be told: %s", another)
        raise


async def _tell(network: Network, run: Published, stages: Sequence[int], why: str) -> None:
    """Say it of each seat over a link of its own."""

    def pass_over(peer: PeerId, message: Message, tensors: Sequence[torch.Tensor] = ()) -> None:
        log.debug("%s says %s, or could not be told it", peer, type(message).__name__)

    assert network.papers is not None, "this process is of no run"
    door = GuardedDoor(network.papers, network.me, barred=network.barred, refused=network.refused)
    links = Links(
        network.carriers("auto"),
        door,
        MAX_BYTES,
        on_message=pass_over,
        on_lost=lambda peer, reason: log.debug("%s is lost: %s", peer, reason),
        on_send_failed=pass_over,
        reach=network.reach,
    )
    links.know(PeerId(run.trainer), {"libp2p": run.addresses, "direct": run.direct})
    await links.start()
    try:
        for stage in stages:
            links.send(PeerId(run.trainer), Unable(stage, why), of=stage)
        await links.flush(TELL_S)
    finally:
        await links.close()
