"""The gain of several connections for one link where each has its limit."""

from __future__ import annotations

import asyncio
import time

import torch

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.lab.homes.narrow_path import narrow_path
from swarmrt.messages import Part
from swarmrt.runtime.access.door import UnguardedDoor
from swarmrt.runtime.access.identity import Identity
from swarmrt.runtime.carriers.direct import DirectCarrier
from swarmrt.runtime.links.links import Links
from swarmrt.runtime.reach.addresses import parse_address

BYTES_PER_S = 20e6  # of one connection
MESSAGE_BYTES = 2 << 20
MESSAGES = 48
PATIENCE_S = 120.0


async def bytes_per_s(identity: Identity, streams: int) -> float:
    """Return the throughput from the first message's sending to the last one's arrival, so with
    what opening takes.

    Both ends are in this process. Raises RunError when the link is lost.
    """
    arrived = asyncio.Semaphore(0)
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_lost(_: PeerId, reason: str) -> None:
        if not lost.done():
            lost.set_exception(RunError(reason))

    def end() -> Links:
        return Links(
            [DirectCarrier(identity)],
            UnguardedDoor("bench"),
            MESSAGE_BYTES,
            on_message=lambda *_: arrived.release(),
            on_lost=on_lost,
            on_send_failed=lambda *_: None,  # the loss is reported as well
            streams=streams,
        )

    first, second = end(), end()
    bulk = torch.zeros(MESSAGE_BYTES, dtype=torch.uint8)
    try:
        for links in (first, second):
            await links.start()
        host, port = parse_address(second.addresses("direct")[0])
        async with narrow_path(host, port, BYTES_PER_S) as (_, begins_at):
            first.know(identity.peer_id, {"direct": [f"127.0.0.1:{begins_at}"]})
            started = time.perf_counter()
            for number in range(MESSAGES):
                first.send(identity.peer_id, Part(0, 0, 0, number, False), [bulk])
            await _all(arrived, lost)
            return MESSAGES * MESSAGE_BYTES / (time.perf_counter() - started)
    finally:
        for links in (first, second):
            await links.close()
        lost.cancel()


async def _all(arrived: asyncio.Semaphore, lost: asyncio.Future[None]) -> None:
    async def all_arrived() -> None:
        for _ in range(MESSAGES):
            await arrived.acquire()

    waiting = asyncio.ensure_future(all_arrived())
    await asyncio.wait({waiting, lost}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    if lost.done():
        await lost
    if not waiting.done():
        waiting.cancel()
        raise RunError("messages of the measurement did not arrive")
