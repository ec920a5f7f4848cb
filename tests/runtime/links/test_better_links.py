"""A link that fell back to libp2p changes over to a direct one, and loses nothing by it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import torch

from swarmrt.messages import Finish, Message, Part
from swarmrt.runtime.carriers.buffered import BufferedConnection
from swarmrt.runtime.limits.uplink import Uplink
from swarmrt.runtime.links import better_links, dialing
from swarmrt.runtime.links.open_links import Link
from swarmrt.wire.kinds import Moved, Moving
from swarmrt.wire.writing import FrameWriter, encode
from tests.runtime.links.test_links import End, run, two_ends, until

BULK = 3_000_000  # values of each: 12 MB, many frames


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that nobody has to wait for."""
    monkeypatch.setattr(better_links, "LOOK_S", 0.05)
    monkeypatch.setattr(dialing, "AVOID_S", 0.05)
    monkeypatch.setattr(dialing, "HEAR_S", 0.1)


def carrier_of(end: End, other: End) -> str:
    outbox = end.links._outboxes.get(other.me)
    return outbox.connection.carrier if outbox is not None and outbox.connection else ""


def direct_links(end: End) -> list[Link]:
    return [link for link in end.links._links if link.connection.carrier == "direct"]


async def meet_through_daemons(first: End, second: End) -> None:
    first.links.send(second.me, Finish("0"))
    await until(lambda: second.got)
    second.links.send(first.me, Finish("0"))
    await until(lambda: first.got)
    assert carrier_of(first, second) == carrier_of(second, first) == "libp2p"


def become_known(first: End, second: End) -> None:
    first.links.know(second.me, second.addresses())
    second.links.know(first.me, first.addresses())


async def have_changed(first: End, second: End) -> None:
    await until(lambda: carrier_of(first, second) == carrier_of(second, first) == "direct")


class Talk:
    """Numbered messages from one end to the other, and bulk now and then."""

    def __init__(self, end: End, other: End, values: int = BULK) -> None:
        self.end, self.other = end, other
        self.said, self.bulk = 1, 0
        self._values = torch.arange(values, dtype=torch.float32)
        self._task = asyncio.create_task(self._talk())

    async def _talk(self) -> None:
        while True:
            self.end.links.send(self.other.me, Finish(str(self.said)))
            self.said += 1
            if self.said % 50 == 1:
                part = Part(1, 1, 1, self.bulk, False)
                self.end.links.send(self.other.me, part, [self._values])
                self.bulk += 1
            await asyncio.sleep(0.002)

    async def all_came_in_order(self) -> None:
        self._task.cancel()
        got = self.other.got
        await until(lambda: len(got) == self.said + self.bulk)
        messages: Sequence[Message] = [message for _, message, _ in got]
        texts = [message.reason for message in messages if isinstance(message, Finish)]
        assert texts == [str(number) for number in range(self.said)]
        parts = [message for message in messages if isinstance(message, Part)]
        assert parts == [Part(1, 1, 1, number, False) for number in range(self.bulk)]
        for _, message, tensors in got:
            if isinstance(message, Part):
                assert torch.equal(tensors[0], self._values)
        assert not self.end.failed and not self.end.lost


@pytest.mark.parametrize("mbps", [None, 400.0])
def test_it_changes_over_under_load_at_both_ends_and_keeps_the_order(mbps: float | None) -> None:
    """Bulk has an order where it has no further connections."""

    async def story() -> None:
        async with two_ends(know=False, streams=1) as (first, second):
            if mbps is not None:
                first.links._writing.uplink = Uplink(mbps * 1e6 / 8)
            await meet_through_daemons(first, second)
            talks = [Talk(first, second), Talk(second, first)]
            await until(lambda: all(talk.bulk > 1 for talk in talks))
            become_known(first, second)
            await have_changed(first, second)
            said = [talk.bulk + 1 for talk in talks]
            await until(lambda: all(t.bulk > b for t, b in zip(talks, said, strict=True)))
            for talk in talks:
                await talk.all_came_in_order()

    run(story())


def test_without_an_answer_it_stays_and_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other end's daemon stands still: what is said through it waits, and is not lost."""
    monkeypatch.setattr(better_links, "ANSWER_S", 0.2)

    async def story() -> None:
        async with two_ends(know=False) as (first, second):
            await meet_through_daemons(first, second)
            second.network.daemon.stand_still(2.0)
            talks = [Talk(first, second, 1000), Talk(second, first, 1000)]
            become_known(first, second)
            outbox = first.links._outboxes[second.me]
            await until(lambda: outbox.move is not None and outbox.move.number > 1)
            assert carrier_of(first, second) == "libp2p"
            await have_changed(first, second)
            for talk in talks:
                await talk.all_came_in_order()

    run(story())


def test_when_the_better_one_breaks_the_old_one_is_used_until_there_is_another() -> None:
    async def story() -> None:
        async with two_ends(know=False) as (first, second):
            await meet_through_daemons(first, second)
            become_known(first, second)
            await have_changed(first, second)
            broken = [*direct_links(first), *direct_links(second)]
            for link in direct_links(first):
                link.connection.abort()
            await until(lambda: not {*direct_links(first), *direct_links(second)} & {*broken})
            first.links.send(second.me, Finish("1"))
            await until(lambda: len(second.got) == 2)
            await have_changed(first, second)
            first.links.send(second.me, Finish("2"))
            await until(lambda: len(second.got) == 3)
            assert not first.lost and not second.lost

    run(story())


def test_a_peer_without_a_better_way_is_dialed_ever_more_rarely() -> None:
    """The peer's direct address leads nowhere."""

    async def story() -> None:
        async with two_ends(know=False) as (first, second):
            await meet_through_daemons(first, second)
            first.links.know(second.me, {**second.addresses(), "direct": ["127.0.0.1:9"]})
            dialer = first.links._dialer
            await until(lambda: (second.me, "direct") in dialer._failures)
            failures = dialer._failures[second.me, "direct"]
            await until(lambda: failures.number > 3)
            assert dialer.better_due_s(second.me, "libp2p") > 4 * dialing.AVOID_S
            assert carrier_of(first, second) == "libp2p" and not first.lost

    run(story())


def test_answers_that_nobody_asked_for_change_nothing() -> None:
    async def story() -> None:
        async with two_ends("libp2p") as (first, second):
            await meet_through_daemons(first, second)
            outbox = first.links._outboxes[second.me]
            assert outbox.connection is not None
            for message in (Moved(1), Moving(7), Moved(7)):
                outbox.connection.write(outbox.frames.alone(encode(message)))
            first.links.send(second.me, Finish("after"))
            second.links.send(first.me, Finish("after"))
            await until(lambda: len(first.got) == len(second.got) == 2)
            assert not first.lost and not second.lost

    run(story())


def test_who_asks_and_does_not_read_gets_few_answers() -> None:
    async def story() -> None:
        async with two_ends("libp2p") as (first, second):
            await meet_through_daemons(first, second)
            [link], [theirs] = first.links._links, second.links._links
            assert isinstance(link.connection, BufferedConnection)
            assert isinstance(theirs.connection, BufferedConnection)
            theirs.connection._transport.pause_reading()
            waits = link.connection._transport.get_write_buffer_size
            for number in range(100):
                part = Part(1, 1, 1, number, False)
                first.links.send(second.me, part, [torch.zeros(BULK)])
            await until(lambda: not link.connection.may_write)
            before = waits()
            for number in range(1000):
                first.links._better.heard(link, Moving(number))
            assert 0 < waits() - before < 100 * better_links.MAX_ANSWERS

    run(story())


def test_a_writer_that_finishes_begins_nothing_but_control() -> None:
    writer, big = FrameWriter(), torch.zeros(200_000)
    for number in range(2):
        writer.push(encode(Part(1, 1, 1, number, False), [big]))
    writer.next_frames()
    writer.finishes = True  # since one is begun
    writer.push(encode(Finish("control")))
    frames = 0
    while writer.has_next:
        assert writer.next_frames()
        frames += 1
    assert frames > 1
    assert [outgoing.message for outgoing in writer.unsent()] == [Part(1, 1, 1, 1, False)]
