"""Links of several connections, over a path on which each has its limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import torch

from swarmrt.lab.homes.narrow_path import NarrowPath, narrow_path
from swarmrt.messages import Finish, Part
from swarmrt.runtime.carriers.certificates import make_contexts
from swarmrt.runtime.directory.network import open_network
from swarmrt.runtime.links import streams
from swarmrt.runtime.reach.addresses import parse_address
from swarmrt.wire.kinds import Join
from swarmrt.wire.writing import FrameWriter, encode
from tests.runtime.links.test_links import End, run, two_ends, until

BYTES_PER_S = 4e6  # of one connection
MESSAGES = 12
BULK = torch.arange(1 << 18, dtype=torch.int32)  # 1 MiB


@asynccontextmanager
async def far_ends() -> AsyncIterator[tuple[End, End, NarrowPath]]:
    """Two ends with a narrow path from the first to the second, which has not dialed."""
    async with two_ends("direct") as (first, second):
        host, port = parse_address(second.links.addresses("direct")[0])
        async with narrow_path(host, port, BYTES_PER_S) as (path, begins_at):
            first.links.know(second.me, {"direct": [f"127.0.0.1:{begins_at}"]})
            yield first, second, path


def send_bulk(first: End, second: End) -> None:
    for number in range(MESSAGES):
        first.links.send(second.me, Part(1, 1, 1, number, False), [BULK])


def test_bulk_that_waits_widens_the_link_until_it_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        async with far_ends() as (first, second, path):
            send_bulk(first, second)
            first.links.send(second.me, Finish("control"))
            await until(lambda: len(second.got) == MESSAGES + 1)
            parts = [message for message in second.messages() if isinstance(message, Part)]
            assert sorted(part.index for part in parts) == list(range(MESSAGES))
            assert all(torch.equal(payload[0], BULK) for _, _, payload in second.got if payload)
            assert 1 < path.opened <= 4
            await until(lambda: path.open_now == 1)
            first.links.send(second.me, Finish("after"))
            second.links.send(first.me, Finish("back"))
            await until(lambda: first.got and second.messages()[-1] == Finish("after"))
            assert not first.lost and not second.lost and not first.failed

    monkeypatch.setattr(streams, "IDLE_S", 0.2)
    run(story())


def test_link_that_found_no_further_connection_looks_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        async with far_ends() as (first, second, path):
            first.links.send(second.me, Finish("hello"))
            await until(lambda: bool(second.got))
            path.is_closed = True
            send_bulk(first, second)
            await until(lambda: len(second.got) == MESSAGES + 1)
            assert path.opened == 1 and not first.lost and not second.lost
            path.is_closed = False
            send_bulk(first, second)
            await until(lambda: path.opened > 1)
            await until(lambda: len(second.got) == 2 * MESSAGES + 1)

    monkeypatch.setattr(streams, "REST_S", 0.1)
    run(story())


def test_loss_of_one_connection_is_the_loss_of_the_link() -> None:
    async def story() -> None:
        async with far_ends() as (first, second, path):
            send_bulk(first, second)
            await until(lambda: path.opened == 2 and first.links._outboxes[second.me].streams)
            await until(lambda: len(first.links._outboxes[second.me].streams or ()))
            path.break_newest()
            await until(lambda: first.lost and second.lost)
            assert len(first.lost) == len(second.lost) == 1
            assert first.failed and len(first.failed) + len(second.got) <= MESSAGES
            await until(lambda: path.open_now == 0)
            before = len(second.got)
            first.links.send(second.me, Finish("on a new link"))
            await until(lambda: len(second.got) > before)
            assert second.messages()[-1] == Finish("on a new link")

    run(story())


def test_one_connection_is_all_that_a_link_of_one_has() -> None:
    async def story() -> None:
        async with two_ends("direct", streams=1) as (first, second):
            host, port = parse_address(second.links.addresses("direct")[0])
            async with narrow_path(host, port, BYTES_PER_S) as (path, begins_at):
                first.links.know(second.me, {"direct": [f"127.0.0.1:{begins_at}"]})
                for number in range(4):
                    first.links.send(second.me, Part(1, 1, 1, number, False), [BULK])
                await until(lambda: len(second.got) == 4)
                assert path.opened == 1

    run(story())


def test_stranger_cannot_join_a_link() -> None:
    """Neither with a key that is none, nor with the key of another peer's link."""

    async def story() -> None:
        async with two_ends("direct") as (first, second), open_network([]) as other:
            second.links.send(first.me, Finish("before"))
            await until(lambda: first.got)
            (link,) = first.links._links
            host, port = parse_address(first.links.addresses("direct")[0])
            for key in ("", "nonsense", link.stream_key):
                reader, writer = await asyncio.open_connection(
                    host, port, ssl=make_contexts(other.daemon.identity).dialing
                )
                frames = FrameWriter()
                frames.push(encode(Join(key)))
                frames.push(encode(Finish("from a stranger")))
                while len(frames):
                    writer.writelines(frames.next_frames())
                with suppress(OSError):  # as good as an end
                    while await reader.read(1 << 16):
                        pass
                writer.close()
            second.links.send(first.me, Finish("after"))
            await until(lambda: len(first.got) == 2)
            assert first.messages() == [Finish("before"), Finish("after")]
            assert not link.joined

    run(story())
