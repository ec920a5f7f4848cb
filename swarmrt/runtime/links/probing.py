"""The distance to another process: the round trip, the bandwidth, and the offset of its clock.

Anyone who reaches a process of the run may ask. Answers are no event for a core, and there is a
budget for them, so that asking takes little from the one who trains.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.messages import DialBack, DialedBack, Message, Probe, Probed
from swarmrt.runtime.access.door import Door
from swarmrt.runtime.carriers.carriers import Carrier
from swarmrt.runtime.limits.quotas import MAX_PROBE_BYTES
from swarmrt.runtime.limits.rates import Bucket, Buckets, Rate
from swarmrt.runtime.links.links import Links
from swarmrt.runtime.reach.addresses import Reach
from swarmrt.runtime.reach.place import Ports

BUDGET = Rate(64 << 20, 8 << 20)  # bytes of probes that are answered; three doctors' at once
BUDGET_OF_ONE = Rate(48 << 20, 4 << 20)  # of one peer
PROBE_BYTES = 1 << 10  # what one costs at least

ROUND_TRIPS = 8
FIRST_BYTES = 256 << 10  # of the first transfer; four times as many follow while that is quick
QUICK_S = 0.5
PATIENCE_S = 15.0  # for one answer: 4 MiB at 300 kB/s
OPENINGS_S = (1.0, 4.0)  # patience with the first probes of a link, each of which dials

Tensors = Sequence[torch.Tensor]
Send = Callable[[PeerId, Message, Tensors], None]


class Answers:
    """The answers of a process to those who probe it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now` gives seconds."""
        self._now = now
        self._payload = torch.zeros(0, dtype=torch.uint8)  # shared by all answers, once needed
        self._budget = Bucket(BUDGET, now())
        self._budgets: Buckets[PeerId] = Buckets(BUDGET_OF_ONE)

    def answer(self, sender: PeerId, probe: Probe, tensors: Tensors, send: Send) -> None:
        """Answer with a payload as long as asked for; with none when there is no budget for it."""
        size = min(max(probe.answer_bytes, 0), MAX_PROBE_BYTES)
        came = sum(tensor.nbytes for tensor in tensors)
        cost, now = PROBE_BYTES + came + size, self._now()
        affordable = self._budgets.take(sender, cost, now) and self._budget.take(cost, now)
        if not affordable:
            size = 0
        if size > len(self._payload):
            self._payload = torch.zeros(MAX_PROBE_BYTES, dtype=torch.uint8)
        send(sender, Probed(probe.number, time.time(), affordable), (self._payload[:size],))


@dataclass(frozen=True)
class Distance:
    round_trip_s: float  # the least of some
    clock_offset_s: float  # its wall clock's lead over ours; right to half a round trip
    there_bytes_per_s: float
    back_bytes_per_s: float


class Prober:
    """Asks by links of one carrier, one probe at a time. `start` first, `close` at the end."""

    def __init__(
        self, carrier: Carrier, door: Door, max_message_bytes: int, reach: Reach | None = None
    ) -> None:
        self.carrier, self._reach = carrier, reach
        self._links = Links(
            [carrier],
            door,
            max_message_bytes,
            on_message=self._arrived,
            on_lost=self._lost,
            on_send_failed=lambda peer, message: None,  # `_lost` is told as well, and why
            reach=reach,
        )
        self._number = 0
        self._peer: PeerId | None = None
        self._answer: asyncio.Future[tuple[Probed, float, int]] | None = None
        self._dialed: asyncio.Future[DialedBack] | None = None
        self._payload = torch.zeros(MAX_PROBE_BYTES, dtype=torch.uint8)

    def within_reach(self, addresses: Sequence[str]) -> list[str]:
        """Return those of a peer's addresses that may be dialed from here."""
        return (
            list(addresses) if self._reach is None else self.carrier.within(self._reach, addresses)
        )

    async def start(self) -> None:
        await self._links.start()

    async def close(self) -> None:
        await self._links.close()

    async def measure(self, peer: PeerId, addresses: Sequence[str]) -> Distance:
        """Measure a peer. Raises RunError when it cannot be reached, or does not answer."""
        self._links.know(peer, {self.carrier.name: addresses})
        try:
            await self._open(peer)
            trips = [await self._ask(peer, 0, 0) for _ in range(ROUND_TRIPS)]
            round_trip_s, offset_s = min(trips)
            there = await self._throughput(peer, round_trip_s, lambda size: (size, 0))
            back = await self._throughput(peer, round_trip_s, lambda size: (0, size))
        finally:
            self._links.drop(peer)  # or probes by another carrier would be answered by this link
        return Distance(round_trip_s, offset_s, there, back)

    async def dial_back(
        self, peer: PeerId, addresses: Sequence[str], number: int, ports: Ports
    ) -> DialedBack:
        """Have a peer dial this process at these ports. Raises RunError when it does not."""
        self._links.know(peer, {self.carrier.name: addresses})
        wanted = DialBack(number, ports.libp2p, ports.direct, ports.udp)
        try:
            await self._open(peer)
            self._dialed = asyncio.get_running_loop().create_future()
            self._links.send(peer, wanted)
            async with asyncio.timeout(PATIENCE_S):
                dialed = await self._dialed
        except TimeoutError:
            raise RunError(f"no answer in {PATIENCE_S:.0f} s") from None
        finally:
            self._dialed = None
            self._links.drop(peer)
        if not dialed.affordable:
            raise RunError("it has dialed somebody just now: try again in a few seconds")
        return dialed

    async def _open(self, peer: PeerId) -> None:
        """Get a link that is answered. The peer may still believe in one that was dropped."""
        for patience_s in OPENINGS_S:
            try:
                await self._ask(peer, 0, 0, patience_s)
                return
            except RunError:
                self._links.drop(peer)
        await self._ask(peer, 0, 0)

    async def _throughput(
        self, peer: PeerId, round_trip_s: float, sizes: Callable[[int], tuple[int, int]]
    ) -> float:
        """Bytes per second of the longest transfer that was tried."""
        size = FIRST_BYTES
        while True:
            seconds, _ = await self._ask(peer, *sizes(size))
            if seconds > QUICK_S or size >= MAX_PROBE_BYTES:
                return size / max(seconds - round_trip_s, 1e-6)
            size = min(4 * size, MAX_PROBE_BYTES)

    async def _ask(
        self, peer: PeerId, size: int, answer_bytes: int, patience_s: float = PATIENCE_S
    ) -> tuple[float, float]:
        """Return the seconds until the answer, and by how much the peer's clock is ahead of ours.

        The offset is that of NTP (Mills 1991), whose two middle times are one here.
        """
        self._number += 1
        self._peer = peer
        self._answer = asyncio.get_running_loop().create_future()
        asked_at_s, started = time.time(), time.perf_counter()
        self._links.send(peer, Probe(self._number, answer_bytes), (self._payload[:size],))
        try:
            async with asyncio.timeout(patience_s):
                probed, answered_s, came = await self._answer
        except TimeoutError:
            raise RunError(f"no answer to a probe in {patience_s:.0f} s") from None
        if not probed.affordable or came != answer_bytes:
            raise RunError("it has been asked too much, or was just now: try again in a minute")
        seconds = answered_s - started
        return seconds, probed.clock_s - (asked_at_s + seconds / 2)

    def _arrived(self, sender: PeerId, message: Message, tensors: Tensors) -> None:
        """Take the answer that is waited for; anything else is none of ours."""
        if isinstance(message, DialedBack) and self._waits_for_dialing(sender):
            assert self._dialed is not None
            self._dialed.set_result(message)
        answer = self._awaited_of(sender)
        if answer is not None and isinstance(message, Probed) and message.number == self._number:
            came = sum(tensor.nbytes for tensor in tensors)
            answer.set_result((message, time.perf_counter(), came))

    def _lost(self, peer: PeerId, reason: str) -> None:
        answer = self._awaited_of(peer)
        if answer is not None:
            answer.set_exception(RunError(reason))
        if self._waits_for_dialing(peer):
            assert self._dialed is not None
            self._dialed.set_exception(RunError(reason))

    def _waits_for_dialing(self, peer: PeerId) -> bool:
        return self._dialed is not None and not self._dialed.done() and self._peer == peer

    def _awaited_of(self, peer: PeerId) -> asyncio.Future[tuple[Probed, float, int]] | None:
        waits = self._answer is not None and not self._answer.done() and self._peer == peer
        return self._answer if waits else None
