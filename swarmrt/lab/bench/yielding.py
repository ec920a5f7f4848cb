"""The time that an activation takes while a round is under way on the same uplink.

One process sends parts to a replica of its stage, as fast as they go, and activations to a replica
of the next stage, by another link; or both to one peer. All that it sends goes over one line, as at
home. All ends are in this process, so that one clock tells when a message was sent and has come.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import torch

from swarmrt.errors import RunError
from swarmrt.ids import MicrobatchId, Work
from swarmrt.lab.homes.narrow_path import Line, narrow_path
from swarmrt.messages import Forward, Message, Part
from swarmrt.runtime.access.door import UnguardedDoor
from swarmrt.runtime.access.identity import Identity, new_identity
from swarmrt.runtime.carriers.direct import DirectCarrier
from swarmrt.runtime.limits.uplink import Uplink
from swarmrt.runtime.links.links import Links
from swarmrt.runtime.reach.addresses import parse_address

LINE_BYTES_PER_S = 50e6 / 8
ACTIVATION_BYTES = 100_000
ROUND_BYTES = 4 * 4_000_000  # of 4 million values in fp32, to one other replica: slices and sums
PART_BYTES = 4 << 20
EVERY_S = 0.1  # an activation
ALONE = 15  # activations before the round
PATIENCE_S = 60.0


@dataclass
class End:
    """A process's links, and when activations came to it, on the loop's clock."""

    identity: Identity = field(default_factory=lambda: new_identity())
    uplink: Uplink | None = None
    came_at: dict[int, float] = field(default_factory=dict)
    parts_came: int = 0

    def __post_init__(self) -> None:
        self.links = Links(
            [DirectCarrier(self.identity)],
            UnguardedDoor("bench"),
            PART_BYTES,
            on_message=lambda _, message, __: self._take(message),
            on_lost=lambda *_: None,  # what does not come is noticed
            on_send_failed=lambda *_: None,
            streams=4,
            uplink=self.uplink,
        )

    def _take(self, message: Message) -> None:
        if isinstance(message, Part):
            self.parts_came += 1
        elif isinstance(message, Forward):
            self.came_at[message.work.microbatch.index] = asyncio.get_running_loop().time()


async def measure(link_bytes_per_s: float | None, *, on_one_link: bool = False) -> dict[str, float]:
    """Return the seconds that an activation takes, in the median and at worst, alone and beside a
    round, and those of the round. Raises RunError when the links break."""
    loop = asyncio.get_running_loop()
    uplink = None if link_bytes_per_s is None else Uplink(link_bytes_per_s)
    activation = torch.zeros(ACTIVATION_BYTES, dtype=torch.uint8)
    part = torch.zeros(PART_BYTES, dtype=torch.uint8)
    parts = -(-ROUND_BYTES // PART_BYTES)
    async with _ends(uplink) as (sender, replica, of_next_stage):
        to = replica if on_one_link else of_next_stage
        sent_at: list[float] = []

        async def send_one() -> None:
            message = Forward(Work(MicrobatchId(0, len(sent_at)), 0), 0, ())
            sent_at.append(loop.time())
            sender.links.send(to.identity.peer_id, message, [activation])
            await asyncio.sleep(EVERY_S)

        async def all_came() -> None:
            while len(to.came_at) < len(sent_at):
                await asyncio.sleep(EVERY_S)

        try:
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(ALONE):
                    await send_one()
                await all_came()
                began_at = loop.time()
                for index in range(parts):
                    what = Part(0, 0, 0, index, False)
                    sender.links.send(replica.identity.peer_id, what, [part])
                await asyncio.sleep(EVERY_S)
                while replica.parts_came < parts:
                    await send_one()
                round_s = loop.time() - began_at
                await all_came()
        except TimeoutError:
            raise RunError("messages of the measurement did not arrive") from None
        times = [to.came_at[number] - at for number, at in enumerate(sent_at)]
    alone, beside = times[1:ALONE], times[ALONE:]  # the first one has the link dialed
    return {
        "alone_s": statistics.median(alone),
        "alone_worst_s": max(alone),
        "beside_a_round_s": statistics.median(beside),
        "beside_a_round_worst_s": max(beside),
        "round_s": round_s,
    }


@asynccontextmanager
async def _ends(uplink: Uplink | None) -> AsyncIterator[tuple[End, End, End]]:
    """Start a process that sends over its line to two others."""
    line = Line(LINE_BYTES_PER_S)
    sender, *others = End(uplink=uplink), End(), End()
    async with AsyncExitStack() as stack:
        for end in (sender, *others):
            await end.links.start()
            stack.push_async_callback(end.links.close)
        for end in others:
            host, port = parse_address(end.links.addresses("direct")[0])
            path = narrow_path(host, port, LINE_BYTES_PER_S, line)
            _, begins_at = await stack.enter_async_context(path)
            where = {"direct": [f"127.0.0.1:{begins_at}"]}
            sender.links.know(end.identity.peer_id, where)
        yield sender, others[0], others[1]
