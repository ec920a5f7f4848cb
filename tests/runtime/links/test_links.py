"""Daemons, directory and links, with real processes and sockets."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hivemind.p2p.p2p_daemon_bindings.datastructures import PeerID

from swarmrt.cli.process.running import new_loop
from swarmrt.errors import DirectoryError, RunError, UsageError
from swarmrt.ids import PeerId, seat_of
from swarmrt.messages import Finish, Message, Part
from swarmrt.runtime.access.door import UnguardedDoor
from swarmrt.runtime.access.identity import open_identity
from swarmrt.runtime.carriers.libp2p import STREAM
from swarmrt.runtime.daemon.daemon import Daemon, check_address
from swarmrt.runtime.directory.network import LOOPBACK, Network, open_network
from swarmrt.runtime.faults.faults import LinkFaults
from swarmrt.runtime.links.links import Links
from swarmrt.runtime.links.moving import tell_what_moves
from swarmrt.runtime.links.open_links import MAX_INCOMING
from swarmrt.scheduler.events import Moved
from swarmrt.wire.frames import prefix_of
from swarmrt.wire.kinds import Hello
from swarmrt.wire.versions import SPEAKS, Versions
from swarmrt.wire.writing import FrameWriter, encode
from tests.processes import COMMAND, environment

PATIENCE_S = 60.0

Link = Literal["auto", "direct", "libp2p"]
both_carriers = pytest.mark.parametrize("link", ["direct", "libp2p"])


class End:
    """One end of links, with what has come in."""

    def __init__(
        self,
        network: Network,
        link: Link,
        run: str = "test",
        max_bytes: int = 64 << 20,
        streams: int = 4,
        speaks: Versions = SPEAKS,
    ) -> None:
        self.network = network
        self.faults = LinkFaults()
        self.got: list[tuple[PeerId, Message, Sequence[torch.Tensor]]] = []
        self.lost: list[tuple[PeerId, str]] = []
        self.failed: list[tuple[PeerId, Message]] = []
        self.links = Links(
            network.carriers(link),
            UnguardedDoor(run),
            max_bytes,
            on_message=lambda *what: self.got.append(what),
            on_lost=lambda *what: self.lost.append(what),
            on_send_failed=lambda *what: self.failed.append(what),
            faults=self.faults,
            streams=streams,
            reach=network.reach,
            speaks=speaks,
        )

    @property
    def me(self) -> PeerId:
        return self.network.me

    def addresses(self) -> dict[str, list[str]]:
        return {name: self.links.addresses(name) for name in ("direct", "libp2p")}

    def messages(self) -> list[Message]:
        return [message for _, message, _ in self.got]


@asynccontextmanager
async def two_ends(
    link: Link = "auto", know: bool = True, streams: int = 4, **options: object
) -> AsyncIterator[tuple[End, End]]:
    async with open_network([]) as first:
        async with open_network(first.daemon.addresses()) as second:
            ends = (
                End(first, link, streams=streams),
                End(second, link, streams=streams, **options),  # type: ignore[arg-type]
            )
            for end in ends:
                await end.links.start()
            if know:
                ends[0].links.know(second.me, ends[1].addresses())
                ends[1].links.know(first.me, ends[0].addresses())
            try:
                yield ends
            finally:
                for end in ends:
                    await end.links.close()


def run(story: Coroutine[Any, Any, None]) -> None:
    """On the event loop that the commands use."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story)
    # Tasks that hivemind leaves complain now, and not while Python 3.11 parses, which fails then.
    gc.collect()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


@both_carriers
def test_messages_and_tensors_go_both_ways_on_one_stream(link: Link) -> None:
    async def story() -> None:
        async with two_ends(link) as (first, second):
            big = torch.arange(5_000_000, dtype=torch.float32)
            first.links.send(second.me, Part(1, 1, 1, 0, False), [big])
            first.links.send(second.me, Finish("control"))
            await until(lambda: len(second.got) == 2)
            assert second.messages() == [Finish("control"), Part(1, 1, 1, 0, False)]
            sender, _, [got] = second.got[1]
            assert sender == first.me and torch.equal(got, big)
            second.links.send(first.me, Finish("back"))
            await until(lambda: first.got)
            assert first.got[0][:2] == (second.me, Finish("back"))

    run(story())


@both_carriers
def test_messages_sent_together_leave_at_the_end_and_in_their_order(link: Link) -> None:
    async def story() -> None:
        async with two_ends(link) as (first, second):
            first.links.send(second.me, Finish("hello"))
            await until(lambda: second.got)
            with first.links.together, first.links.together:
                for number in range(500):
                    first.links.send(second.me, Finish(str(number)))
                first.links.send(second.me, Part(1, 1, 1, 0, False), [torch.zeros(1_000_000)])
            await until(lambda: len(second.got) == 502)
            texts = [m.reason for m in second.messages() if isinstance(m, Finish)]
            assert texts == ["hello", *map(str, range(500))]

    run(story())


def test_what_is_sent_together_as_the_link_breaks_comes_back_once() -> None:
    async def story() -> None:
        async with two_ends("direct") as (first, second):
            first.links.send(second.me, Finish("hello"))
            await until(lambda: second.got)
            with first.links.together:
                first.links.send(second.me, Finish("lost"))
                first.links.drop(second.me)
            assert first.failed == [(second.me, Finish("lost"))] and len(first.lost) == 1
            first.links.send(second.me, Finish("again"))
            await until(lambda: len(second.got) == 2)
            assert second.messages() == [Finish("hello"), Finish("again")]
            assert first.failed == [(second.me, Finish("lost"))]

    run(story())


@both_carriers
def test_lost_peer_is_reported_once_and_unsent_messages_come_back(link: Link) -> None:
    async def story() -> None:
        async with two_ends(link) as (first, second):
            first.links.send(second.me, Finish("hello"))
            await until(lambda: second.got)
            await second.links.close()
            await second.network.daemon.close()
            await until(lambda: first.lost)
            assert [peer for peer, _ in first.lost] == [second.me]
            first.links.send(second.me, Finish("too late"))
            await until(lambda: first.failed)
            assert first.failed == [(second.me, Finish("too late"))]

    run(story())


@both_carriers
def test_other_run_is_refused(link: Link) -> None:
    async def story() -> None:
        async with two_ends(link, run="another") as (first, second):
            first.links.send(second.me, Finish("hello"))
            await until(lambda: first.lost)
            assert not second.got and not first.got

    run(story())


STRANGER = PeerId("QmVLPZ3uGnMnMqjWnMHoZfFx2nSfAJNBWd6FvSqxV3mnx6")


@both_carriers
def test_nonsense_in_ids_and_addresses_is_a_failed_send(link: Link) -> None:
    async def story() -> None:
        async with two_ends(link) as (first, _):
            first.links.know(STRANGER, {"libp2p": ["rubbish"], "direct": ["rubbish"]})
            strangers = [STRANGER, PeerId("not base58"), PeerId("")]
            for peer in strangers:
                first.links.send(peer, Finish("hello"))
            await until(lambda: len(first.lost) == len(strangers))
            assert sorted(peer for peer, _ in first.failed) == sorted(strangers)

    run(story())


def test_peer_that_is_told_of_before_its_addresses_is_reached_by_the_best_carrier() -> None:
    """Otherwise the link would go through both daemons for as long as it lasts."""

    async def story() -> None:
        async with two_ends(know=False) as (first, second):
            first.links.send(second.me, Finish("early"))
            await asyncio.sleep(0)
            assert not first.links.known_addresses(second.me, "direct")
            first.links.know(second.me, second.addresses())
            await until(lambda: second.messages())
            connection = first.links._outboxes[second.me].connection
            assert connection is not None and connection.carrier_with_streams == "direct"

    run(story())


@both_carriers
def test_peer_that_cannot_be_dialed_may_dial(link: Link) -> None:
    async def story() -> None:
        async with two_ends(link) as (first, second):
            first.links.know(second.me, {"libp2p": ["rubbish"], "direct": ["rubbish"]})
            first.links.send(second.me, Finish("there"))  # every dial of it fails
            await asyncio.sleep(0)  # so that it has begun before the other one
            second.links.send(first.me, Finish("back"))
            await until(lambda: first.got and second.got)
            assert second.messages() == [Finish("there")] and not first.lost

    run(story())


def test_message_that_nobody_would_take_is_not_sent() -> None:
    async def story() -> None:
        async with two_ends() as (first, second):
            with pytest.raises(RunError, match="raise it for this run"):
                first.links.send(second.me, Finish(""), [torch.empty(65 << 20, dtype=torch.uint8)])

    run(story())


def test_a_core_is_told_of_each_link_what_goes_over_it() -> None:
    async def story() -> None:
        async with two_ends("direct") as (first, second):
            told: list[Moved] = []
            task = asyncio.create_task(tell_what_moves(first.links, told.append))
            first.links.send(second.me, Part(1, 2, 3, 4, True), [torch.zeros(1 << 20)])
            await until(lambda: told and told[-1].went_bytes == 4 << 20 and not told[-1].left_bytes)
            task.cancel()
            assert told[-1].links == ((second.me, 4 << 20, 0),)

    run(story())


def test_one_peer_cannot_take_all_links() -> None:
    async def story() -> None:
        async with two_ends("libp2p") as (first, second):
            p2p, writers = second.network.daemon.p2p, []
            for _ in range(MAX_INCOMING + 2):
                _, reader, writer = await p2p.call_binary_stream_handler(
                    PeerID.from_base58(first.me), STREAM
                )
                writers.append(writer)
                async with asyncio.timeout(PATIENCE_S):
                    greeted = await reader.read(1)
                assert bool(greeted) == (len(writers) <= MAX_INCOMING)
            for writer in writers:
                writer.close()

    run(story())


@both_carriers
def test_cut_breaks_both_ends_and_refuses_dials_until_it_ends(link: Link) -> None:
    async def story() -> None:
        async with two_ends(link) as (first, second):
            first.links.send(second.me, Finish("before"))
            second.links.send(first.me, Finish("before"))  # perhaps on a stream of its own
            await until(lambda: first.got and second.got)
            first.faults.cut(second.me, seconds=3600)
            await until(lambda: first.lost and second.lost)
            assert first.lost == [(second.me, "the link was cut")]
            assert [peer for peer, _ in second.lost] == [first.me]
            first.links.send(second.me, Finish("from here"))
            await until(lambda: first.failed)
            assert first.failed == [(second.me, Finish("from here"))]
            second.links.send(first.me, Finish("from there"))
            await until(lambda: len(second.lost) == 2)
            assert len(first.got) == len(second.got) == 1
            first.faults.cut(second.me, seconds=1e-9)
            second.links.send(first.me, Finish("after"))
            first.links.send(second.me, Finish("after"))
            await until(lambda: len(first.got) == len(second.got) == 2)
            assert first.messages()[1] == second.messages()[1] == Finish("after")

    run(story())


@both_carriers
def test_slow_link_holds_messages_and_a_cut_returns_them(link: Link) -> None:
    async def story() -> None:
        async with two_ends(link) as (first, second):
            second.links.send(first.me, Finish("before"))
            await until(lambda: first.got)
            first.faults.slow(second.me, delay_s=3600, seconds=3600)
            first.links.send(second.me, Finish("late"))
            second.links.send(first.me, Finish("there"))
            await until(lambda: len(first.got) == 2)
            assert not second.got
            first.faults.cut(second.me, seconds=3600)
            await until(lambda: first.lost)
            assert first.failed == [(second.me, Finish("late"))]

    run(story())


@both_carriers
def test_slow_link_keeps_the_order(link: Link) -> None:
    async def story() -> None:
        async with two_ends(link) as (first, second):
            first.links.send(second.me, Finish("before"))
            await until(lambda: second.got)
            first.faults.slow(second.me, delay_s=0.3, seconds=3600)
            for number in range(100):
                first.links.send(second.me, Finish(str(number)))
            first.faults.slow(second.me, delay_s=1e-9, seconds=1e-9)
            first.links.send(second.me, Finish("after"))  # must not overtake
            await until(lambda: len(second.got) == 102)
            texts = ["before", *map(str, range(100)), "after"]
            assert second.messages() == [Finish(text) for text in texts]

    run(story())


def test_commands_for_links() -> None:
    faults = LinkFaults()
    faults.obey('{"cut": "A", "seconds": 60}')
    faults.obey('{"slow": "B", "delay_s": 0.5, "seconds": 60}')
    assert faults.is_cut(PeerId("A")) and not faults.is_cut(PeerId("B"))
    assert faults.delay_s(PeerId("B")) == 0.5 and faults.delay_s(PeerId("A")) == 0
    faults.obey('{"still": "C", "seconds": 60}')
    assert faults.delay_s(PeerId("C")) > 50 and faults.delay_s(PeerId("A")) == 0
    faults.obey('{"still": null, "seconds": 30}')
    assert faults.delay_s(PeerId("C")) > 50 and 20 < faults.delay_s(PeerId("A")) <= 30
    hung: list[tuple[str, float]] = []
    faults.on_hang(lambda thread, seconds: hung.append((thread, seconds)))
    faults.obey('{"hang": "reduce", "seconds": 3}')
    assert hung == [("reduce", 3.0)]
    stopped: list[float] = []
    faults.on_daemon(stopped.append, lambda: stopped.append(0.0))
    faults.obey('{"daemon": "still", "seconds": 4}')
    faults.obey('{"daemon": "dead"}')
    assert stopped == [4.0, 0.0]


NO_COMMANDS = [
    "nonsense",
    "[]",
    '{"cut": 3, "seconds": 1}',
    '{"cut": "A"}',
    '{"cut": "A", "seconds": true}',
    '{"cut": "A", "seconds": -1}',
    '{"cut": "A", "seconds": NaN}',
    '{"cut": "A", "seconds": 1e9}',
    '{"cut": "A", "seconds": 1, "delay_s": 1}',
    '{"slow": "A", "seconds": 1}',
    '{"still": 3, "seconds": 1}',
    '{"hang": "everything", "seconds": 1}',
    '{"daemon": "gone", "seconds": 1}',
    '{"daemon": "dead", "seconds": 1}',
    '{"disk": "full"}',
]


@pytest.mark.parametrize("line", NO_COMMANDS)
def test_nonsense_is_no_command(line: str) -> None:
    faults = LinkFaults()
    with pytest.raises(UsageError, match="not a command"):
        faults.obey(line)
    assert not faults.is_cut(PeerId("A")) and not faults.delay_s(PeerId("A"))


def test_process_obeys_its_parent_and_ignores_nonsense() -> None:
    process = subprocess.run(
        [*COMMAND, "bootstrap", "--json", "--listen", "127.0.0.1", "--with-parent"],
        input="nonsense\n" + "x" * 100_000 + "\n",
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
        check=False,
    )
    assert process.returncode == 0 and "Traceback" not in process.stderr
    assert "swarmrt: ignored on standard input: not a command: nonsense" in process.stderr


def hello(run: str = "test") -> bytes:
    writer = FrameWriter()
    writer.push(encode(Hello(*SPEAKS, run, "", (), "", "")))
    return b"".join(writer.next_frames())


GARBAGE = {
    "noise": os.urandom(100_000),
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "hello, then noise": hello() + os.urandom(1000),
    "oversized": hello() + prefix_of(1, 1, 10, 2**30),
    "nothing": b"",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_closes_its_link_and_no_other(garbage: bytes) -> None:
    async def story() -> None:
        async with two_ends("libp2p") as (first, second):
            second.links.send(first.me, Finish("before"))
            await until(lambda: first.got)
            _, reader, writer = await second.network.daemon.p2p.call_binary_stream_handler(
                PeerID.from_base58(first.me), STREAM
            )
            writer.write(garbage)
            writer.write_eof()
            async with asyncio.timeout(PATIENCE_S):
                while await reader.read(1 << 16):
                    pass
            writer.close()
            second.links.send(first.me, Finish("after"))
            await until(lambda: len(first.got) == 2)
            assert first.messages() == [Finish("before"), Finish("after")]

    run(story())


def test_silent_directory_is_an_error_for_people() -> None:
    async def story() -> None:
        daemon = await Daemon.start(None, LOOPBACK, [])
        gone = daemon.addresses()
        await daemon.close()
        with pytest.raises(DirectoryError, match=f"no directory answers at {gone[0]}"):
            await Daemon.start(None, LOOPBACK, gone)

    run(story())


@pytest.mark.parametrize("address", ["nonsense", "/ip4/127.0.0.1/tcp/1", ""])
def test_bad_address(address: str) -> None:
    with pytest.raises(DirectoryError, match="is not an address"):
        check_address(address, with_peer=True)


def test_identity_is_kept_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "identity"
    first = open_identity(path)
    assert open_identity(path).peer_id == first.peer_id
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(b"not a key")
    with pytest.raises(UsageError, match=f"{path}: is not a libp2p RSA key"):
        open_identity(path)


KILLED = """
import asyncio, sys
from swarmrt.runtime.directory.network import open_network
async def main():
    async with open_network([]) as network:
        process = network.daemon._process
        print(process.pid, process.folder, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def test_daemon_and_sockets_go_with_a_killed_process() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    pid, folder = process.stdout.readline().split()
    assert Path(folder).is_dir() and Path(f"/proc/{pid}").exists()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + PATIENCE_S
    while Path(folder).exists() or Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_seats_of_one_process_talk_to_each_other_within_it() -> None:
    """What is said to a seat that is not there comes back, as over any link."""

    async def story() -> None:
        async with two_ends() as (end, _):
            links = end.links
            links._me = end.me
            got: list[tuple[PeerId, Message]] = []
            failed: list[tuple[PeerId, Message]] = []
            for stage in (0, 1):
                links.seat(
                    stage,
                    lambda sender, message, tensors: got.append((sender, message)),
                    lambda to, message: failed.append((to, message)),
                )
            links.send(seat_of(end.me, 1), Finish("for 1"), of=0)
            links.send(seat_of(end.me, 7), Finish("for nobody"), of=0)
            await until(lambda: got and failed)
            assert got == [(seat_of(end.me, 0), Finish("for 1"))]
            assert failed == [(seat_of(end.me, 7), Finish("for nobody"))]

    run(story())
