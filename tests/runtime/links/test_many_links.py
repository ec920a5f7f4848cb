"""More links than one: a second one to a peer, and those of hundreds of peers."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import torch

from swarmrt.ids import PeerId
from swarmrt.messages import Finish, Message, Part
from swarmrt.runtime.access.door import UnguardedDoor
from swarmrt.runtime.access.identity import open_identity
from swarmrt.runtime.carriers.carriers import Connection, Welcome
from swarmrt.runtime.carriers.direct import DirectCarrier
from swarmrt.runtime.links.links import Links
from tests.runtime.links.test_links import End, hello, run, two_ends, until

MANY = 600
BULK = torch.zeros(16 << 20, dtype=torch.uint8)


async def linked_twice(first: End, second: End) -> None:
    """As when both dial at once."""
    first.links.send(second.me, Finish("hello"))
    await until(lambda: second.got)
    connection = await first.links._dialer.dial(second.me)
    first.links._begin(connection, incoming=False)
    ends = (first.links, second.links)
    await until(lambda: all([link.greeted for link in end._links] == [True] * 2 for end in ends))


def written_to(end: End, peer: PeerId) -> Connection:
    connection = end.links._outboxes[peer].connection
    assert connection is not None
    return connection


def texts(end: End) -> list[str]:
    return [message.reason for message in end.messages() if isinstance(message, Finish)]


def test_second_link_is_used_when_the_first_breaks() -> None:
    """It was there, and the peer was lost."""

    async def story() -> None:
        async with two_ends("direct") as (first, second):
            await linked_twice(first, second)
            broken = written_to(first, second.me)
            broken.abort()
            await until(lambda: len(list(second.links._links)) == 1)
            first.links.send(second.me, Finish("there"))
            second.links.send(first.me, Finish("back"))
            await until(lambda: texts(first) and len(texts(second)) == 2)
            assert written_to(first, second.me) is not broken
            assert not first.lost and not second.lost and not first.failed
            written_to(first, second.me).abort()
            await until(lambda: first.lost and second.lost)
            assert len(first.lost) == len(second.lost) == 1

    run(story())


def test_what_was_begun_on_a_broken_link_comes_back_and_the_rest_takes_the_other() -> None:
    async def story() -> None:
        async with two_ends("direct", streams=1) as (first, second):
            await linked_twice(first, second)
            (link, _) = second.links._links
            link.connection._transport.pause_reading()  # type: ignore[attr-defined]
            broken = written_to(first, second.me)
            for number in range(3):
                first.links.send(second.me, Part(1, 1, 1, number, False), [BULK])
            await until(lambda: not broken.may_write)
            broken.abort()
            await until(lambda: len(second.got) == 3)
            assert first.failed == [(second.me, Part(1, 1, 1, 0, False))] and not first.lost
            assert second.messages()[1:] == [Part(1, 1, 1, n, False) for n in (1, 2)]

    run(story())


class Process:
    """A process of an identity, with links over TCP and TLS; what it hears, and whom it loses."""

    def __init__(self, identity: Path) -> None:
        keys = open_identity(identity)
        self.me, self.texts, self.lost = keys.peer_id, list[str](), list[str]()
        self.links = Links(
            [DirectCarrier(keys)],
            UnguardedDoor("test"),
            1 << 20,
            on_message=self._heard,
            on_lost=lambda peer, reason: self.lost.append(reason),
            on_send_failed=lambda peer, message: None,
        )

    def _heard(self, peer: PeerId, message: Message, tensors: object) -> None:
        assert isinstance(message, Finish)
        self.texts.append(message.reason)

    async def say(self, other: Process, text: str) -> None:
        self.links.know(other.me, {"direct": other.links.addresses("direct")})
        self.links.send(other.me, Finish(text))
        await until(lambda: text in other.texts)


def test_process_that_has_started_anew_takes_the_place_of_the_one_that_is_gone(
    tmp_path: Path,
) -> None:
    """The link to that one has not broken: its host lost power, or its router forgot it. It was
    written to for a minute, and nobody knew that the peer holds nothing any more."""

    async def story() -> None:
        trainer = Process(tmp_path / "trainer")
        gone, anew = Process(tmp_path / "peer"), Process(tmp_path / "peer")
        for process in (trainer, gone, anew):
            await process.links.start()
        try:
            await trainer.say(gone, "hello")
            await anew.say(trainer, "here again")
            assert trainer.lost == ["it has started anew"]
            trainer.links.send(anew.me, Finish("to the new one"))
            await until(lambda: anew.texts == ["to the new one"])
            assert gone.texts == ["hello"] and len(trainer.lost) == 1
        finally:
            for process in (trainer, gone, anew):
                await process.links.close()

    run(story())


def test_whatever_error_ends_a_writer_its_link_is_closed_and_the_error_is_seen() -> None:
    """The link stayed open, and what was sent waited for ever."""

    async def story() -> None:
        async with two_ends("direct") as (first, second):
            seen: list[Any] = []
            asyncio.get_running_loop().set_exception_handler(
                lambda loop, context: seen.append(context["exception"])
            )
            first.links.send(second.me, Finish("hello"))
            await until(lambda: second.got)
            error = RuntimeError("the handler is closed")  # as uvloop says it

            async def drain() -> None:
                raise error

            written_to(first, second.me).drain = drain  # type: ignore[method-assign]
            part = Part(1, 1, 1, 0, False)
            first.links.send(second.me, part, [BULK])
            await until(lambda: first.lost and second.lost)
            assert first.lost == [(second.me, f"writing to it failed: {error}")]
            assert first.failed == [(second.me, part)] and seen == [error]
            first.links.send(second.me, Finish("again"))
            await until(lambda: texts(second) == ["hello", "again"])

    run(story())


class Unproven(DirectCarrier):
    """Takes everybody for somebody else: to prove six hundred identities takes a minute."""

    async def start(self, welcome: Welcome) -> None:
        numbers = count()

        def named(connection: Connection) -> None:
            connection.peer = PeerId(f"peer {next(numbers)}")
            welcome(connection)

        await super().start(named)


def test_more_than_five_hundred_peers_may_dial(tmp_path: Path) -> None:
    async def story() -> None:
        carrier = Unproven(open_identity(tmp_path / "trainer"), tls=False)
        got: list[Message] = []
        links = Links(
            [carrier],
            UnguardedDoor("test"),
            1 << 20,
            on_message=lambda peer, message, tensors: got.append(message),
            on_lost=lambda peer, reason: None,
            on_send_failed=lambda peer, message: None,
        )
        await links.start()
        host, _, port = carrier.addresses()[0].rpartition(":")
        writers = []
        try:
            for _ in range(MANY):
                reader, writer = await asyncio.open_connection(host, int(port))
                writers.append(writer)
                writer.write(hello())
                async with asyncio.timeout(60):
                    await reader.readexactly(1)  # or it was refused
            await until(lambda: len(links.peers()) == MANY)
        finally:
            for writer in writers:
                writer.close()
            await links.close()

    run(story())
