"""A bounded uplink: bytes are counted, and what is urgent goes first."""

from __future__ import annotations

import asyncio
import selectors
import statistics

import pytest
import torch

from swarmrt.ids import MicrobatchId, Work
from swarmrt.messages import Finish, Forward, Message, Part, StateChunk
from swarmrt.runtime.limits.uplink import Share, Uplink
from swarmrt.runtime.links.outbox import MAX_QUEUED_CHUNKS, Outbox
from swarmrt.wire.frames import Tally
from swarmrt.wire.writing import FrameWriter, encode
from tests.runtime.links.test_links import Link, both_carriers, run, two_ends, until

RATE = 4e6  # bytes a second
SLOWER = 12e6  # than one frame in the time of a burst
BULK = torch.zeros(1 << 20, dtype=torch.uint8)
PART = Part(1, 1, 1, 0, False)
FORWARD = Forward(Work(MicrobatchId(0, 1), 1), 1, ())


def chunk(number: int) -> StateChunk:
    return StateChunk(0, 1, number * len(BULK), 1 << 30, "d" * 32)


@both_carriers
def test_links_send_no_more_than_they_may(link: Link) -> None:
    """With several connections too. Without a bound all of it went at once."""

    async def story() -> None:
        async with two_ends(link) as (first, second):
            uplink = first.links._writing.uplink = Uplink(RATE)
            began = asyncio.get_running_loop().time()
            for number in range(4):
                first.links.send(second.me, Part(1, 1, 1, number, False), [BULK])
            first.links.send(second.me, Finish("control"))
            await until(lambda: len(second.got) == 5)
            elapsed_s = asyncio.get_running_loop().time() - began
            assert 4 * len(BULK) <= uplink.most_ahead_bytes + RATE * elapsed_s
            assert second.messages()[-1] != Finish("control")

    run(story())


class Peer:
    """What waits for one."""

    may_write = True

    def __init__(self, name: str, uplink: Uplink, sent: list[str]) -> None:
        self.name, self.uplink, self.sent = name, uplink, sent
        self.frames, self.share = FrameWriter(frame_bytes=uplink.frame_bytes), Share()

    def push(self, message: Message) -> None:
        tensors = [] if isinstance(message, Finish) else [BULK]
        self.frames.push(encode(message, tensors))

    def put(self, rank: int) -> int:
        kind = "CWPS"[rank]
        size = sum(map(len, self.frames.next_frames(rank)))
        self.sent.append(kind + self.name)
        return size

    async def write(self) -> None:
        while len(self.frames):
            await self.uplink.turn(self.share, self.frames, self.put, self)


def sent_by(*queues: list[Message]) -> list[str]:
    """Return the senders of all frames, in their order, to peers 0, 1, …"""

    async def story() -> list[str]:
        uplink, sent = Uplink(SLOWER), list[str]()
        peers = [Peer(str(number), uplink, sent) for number in range(len(queues))]
        for peer, queue in zip(peers, queues, strict=True):
            for message in queue:
                peer.push(message)
        uplink._bucket.left = -SLOWER / 5  # so that all of them wait
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for peer in peers:
                tasks.create_task(peer.write())
        return sent

    return asyncio.run(story())


def test_control_comes_before_all_and_state_gets_a_quarter_of_what_work_leaves() -> None:
    sent = sent_by([chunk(0)], [FORWARD], [Finish("")])
    assert sent[:9] == ["C2", *["W1"] * 3, "S0", *["W1"] * 3, "S0"]


def test_parts_yield_to_activations_over_all_links() -> None:
    """While an activation waits for one peer, parts for others get an eighth, and state its
    quarter. Before there was one rank for both, and every second frame was of a part."""
    sent = sent_by([PART], [PART, FORWARD], [chunk(0)])
    kinds = "".join(frame[0] for frame in sent)
    end = kinds.rindex("W") + 1
    assert kinds[:end].startswith("WWWSWWWSWPWSWWWSWWWPSWWWSWWWSWPWS")
    assert kinds[end:].startswith("PSPPPSPPPS"), "and then what is left"


class Waits(selectors.SelectSelector):
    """Lets a loop's time pass at once when nothing is left to do."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += max(0.0, timeout or 0.0)
        return super().select(0)


class ShortLoop(asyncio.SelectorEventLoop):
    """A loop in whose time nothing takes any but waiting."""

    def __init__(self) -> None:
        self.waits = Waits()
        super().__init__(self.waits)

    def time(self) -> float:
        return self.waits.now


class OverALine(Peer):
    """A peer to whom frames go over the line behind the uplink, which all share."""

    line_bytes_per_s = 50e6 / 8
    free_at = 0.0

    def put(self, rank: int) -> int:
        size = super().put(rank)
        now = asyncio.get_running_loop().time()
        OverALine.free_at = max(OverALine.free_at, now) + size / self.line_bytes_per_s
        return size


def activation_times(*, parts: int) -> list[float]:
    """Return the seconds that activations of 100 kB take over a line of 50 Mb/s of which links may
    use 48, while so many parts go to another peer."""

    async def story() -> list[float]:
        OverALine.free_at = 0.0
        uplink, sent = Uplink(48e6 / 8), list[str]()
        replica, of_next_stage = OverALine("0", uplink, sent), OverALine("1", uplink, sent)
        for _ in range(parts):
            replica.push(PART)
        writing = asyncio.ensure_future(replica.write())
        times = []
        for number in range(20):
            await asyncio.sleep(0.1 + number / 1e3)
            began = asyncio.get_running_loop().time()
            of_next_stage.frames.push(encode(FORWARD, [BULK[:100_000]]))
            await of_next_stage.write()
            times.append(OverALine.free_at - began)
        assert writing.done() != (len(replica.frames) > 0) and writing.done() != bool(parts)
        writing.cancel()
        return times

    with asyncio.Runner(loop_factory=ShortLoop) as runner:
        return runner.run(story())


def test_activation_takes_at_most_half_as_long_again_beside_a_round() -> None:
    """In a time in which only bytes take any. It took five times as long, in real time, where a
    frame of parts was as long as two and a half such activations."""
    alone, beside = activation_times(parts=0), activation_times(parts=20)
    assert statistics.median(alone) == pytest.approx(100_000 / (50e6 / 8), rel=0.02)
    assert statistics.median(beside) < 1.3 * statistics.median(alone)
    assert max(beside) < 1.5 * max(alone)


def test_state_goes_to_all_who_ask_in_equal_shares() -> None:
    """Peers get equal shares of the state, though one of them asks for much more."""
    sent = sent_by([chunk(number) for number in range(8)], [chunk(0)], [chunk(0)])
    for peer in ("S0", "S1", "S2"):
        assert sent[:12].count(peer) == 4
    assert set(sent[3 * sent.count("S1") :]) == {"S0"}


def test_one_peer_with_many_connections_has_one_share() -> None:
    async def story() -> list[str]:
        uplink, sent = Uplink(SLOWER), list[str]()
        peers = [Peer(name, uplink, sent) for name in "aaab"]
        for peer in peers:
            peer.push(chunk(0))
            peer.share = peers[3].share if peer.name == "b" else peers[0].share
        uplink._bucket.left = -SLOWER / 5  # so that all of them wait
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for peer in peers:
                tasks.create_task(peer.write())
        return sent

    assert asyncio.run(story())[:8].count("Sb") == 4


def test_who_waits_for_state_sees_from_whom_it_comes_before_it_is_whole() -> None:
    async def story() -> None:
        async with two_ends("direct") as (first, second):
            first.links._writing.uplink = Uplink(RATE)
            first.links.send(second.me, PART, [BULK])
            first.links.send(second.me, chunk(0), [BULK])
            await until(lambda: 0 < second.links.came_state_bytes(first.me) < len(BULK))
            await until(lambda: len(second.got) == 2)
            assert second.links.came_state_bytes(first.me) == len(BULK)
            assert second.links.came_state_bytes(second.me) == 0

    run(story())


def test_state_that_is_on_its_way_is_not_sent_again() -> None:
    """A chunk that is asked for again while it waits on a narrow link is sent once."""

    async def story() -> None:
        async with two_ends("direct") as (first, second):
            second.links.send(first.me, Finish("hello"))
            await until(lambda: first.got)
            first.links._writing.uplink = Uplink(RATE)
            for _ in range(100):
                first.links.send(second.me, chunk(0), [BULK])
            for number in range(1, 100):
                first.links.send(second.me, chunk(number), [BULK])
            await until(lambda: len(first.failed) == 100 - MAX_QUEUED_CHUNKS)
            await until(lambda: len(second.got) == MAX_QUEUED_CHUNKS)
            first.links.send(second.me, chunk(0), [BULK])
            await until(lambda: len(second.got) == MAX_QUEUED_CHUNKS + 1)

    run(story())


def test_work_that_is_on_its_way_is_not_sent_again_either() -> None:
    outbox = Outbox(Tally())
    again = Forward(Work(MicrobatchId(0, 1), 2), 1, ())
    outbox.frames.push(encode(FORWARD, [BULK]))
    assert outbox.is_on_its_way(encode(FORWARD, [BULK]))
    assert not outbox.is_on_its_way(encode(again, [BULK])), "another attempt"
    while len(outbox.frames):
        outbox.frames.next_frames()
    assert not outbox.is_on_its_way(encode(FORWARD, [BULK])), "it may be lost"


def test_writer_that_is_cancelled_sends_nothing_and_hurts_nobody() -> None:
    async def story() -> None:
        uplink, sent = Uplink(SLOWER), list[str]()
        gone, other = Peer("0", uplink, sent), Peer("1", uplink, sent)
        uplink._bucket.left = -SLOWER  # so that both wait
        for peer in (gone, other):
            peer.push(Finish(""))
        writing = [asyncio.ensure_future(peer.write()) for peer in (gone, other)]
        await asyncio.sleep(0)
        writing[0].cancel()
        uplink._bucket.left = 0.0
        uplink.put_control(FrameWriter(), gone.put)
        await writing[1]
        assert sent == ["C1"]

    asyncio.run(story())


def test_writer_that_fails_is_told_so() -> None:
    async def story() -> None:
        def fail(rank: int) -> int:
            raise OSError("gone")

        uplink = Uplink(1e6)
        peer = Peer("", uplink, [])
        peer.push(PART)
        with pytest.raises(OSError, match="gone"):
            await uplink.turn(peer.share, peer.frames, fail, peer)

    asyncio.run(story())
