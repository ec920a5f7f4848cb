"""The local socket of a process that serves: who may ask there, what is asked, and what is said."""

from __future__ import annotations

import asyncio
import functools
import os
import resource
import socket
import stat
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from swarmrt.errors import UsageError
from swarmrt.runtime.owner.answering import MOST_ASKING, answering
from swarmrt.runtime.owner.asking import ask
from swarmrt.runtime.owner.folder import socket_of, sockets_folder, sweep
from swarmrt.runtime.owner.words import MOST_BYTES, VERSION, Asked, Told, line_of, word_of
from tests.processes import PATIENCE_S


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        asyncio.run(test(*args, **fixtures))

    return run


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of sockets of the test's own, whose path is short."""
    with TemporaryDirectory(prefix="t") as base:
        monkeypatch.setenv("XDG_RUNTIME_DIR", base)
        yield Path(base) / "swarmrt"


async def pauses(act: str) -> Told:
    if act not in ("status", "pause"):
        raise UsageError(f"{act!r} is nothing to ask")
    return Told(os.getpid(), "demo@f00d", (1, 2), "paused", freed_bytes=7)


async def in_thread(act: str, *which: str) -> list[Told]:
    return await asyncio.to_thread(ask, act, which)  # type: ignore[arg-type]


@on_a_loop
async def test_whoever_is_named_answers(folder: Path) -> None:
    async with answering(pauses):
        for which in ((), (str(os.getpid()),), ("demo",), ("demo@f00d",)):
            [told] = await in_thread("pause", *which)
            assert (told.state, told.stages, told.freed_bytes, told.error) == (
                "paused",
                (1, 2),
                7,
                "",
            )
        with pytest.raises(UsageError, match=r"no peer of yours here is 'other'; here are .*demo"):
            await in_thread("pause", "other")
        [told] = await in_thread("stop")
        assert "nothing to ask" in told.error
    assert not folder.exists()


@on_a_loop
async def test_who_only_looks_if_it_is_there_is_not_told_of(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with answering(pauses):
        assert await asyncio.to_thread(sweep, folder) == [socket_of(os.getpid(), folder)]
        await in_thread("pause")
    assert not caplog.records


@on_a_loop
async def test_only_the_user_may_enter_folder_and_socket(folder: Path) -> None:
    async with answering(pauses):
        path = socket_of(os.getpid(), folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_where_nobody_serves_that_is_said() -> None:
    with pytest.raises(UsageError, match="no peer of yours serves on this machine"):
        ask("pause")


def test_socket_of_a_process_that_was_killed_is_removed() -> None:
    path = socket_of(4_000_000, sockets_folder())
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))  # nobody listens
    with pytest.raises(UsageError, match="no peer of yours serves"):
        ask("pause")
    assert not path.exists()


def test_folder_that_others_may_enter_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(UsageError, match="is not a folder that only you may enter"):
        ask("pause")


def test_link_in_the_place_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder.symlink_to(tmp_path)
    with pytest.raises(UsageError, match="is not a folder that only you may enter"):
        ask("pause")


@on_a_loop
async def test_without_a_folder_it_serves_all_the_same(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_text("")
    async with answering(pauses):
        pass
    assert "`swarmrt pause` will not find this peer" in caplog.text


@on_a_loop
async def test_other_user_is_not_answered(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The kernel says whose process is at the other end."""
    async with answering(pauses):
        path = socket_of(os.getpid(), folder)
        mine = os.getuid()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(line_of(Asked("pause")))
            monkeypatch.setattr(os, "getuid", lambda: mine + 1)
            assert await asyncio.to_thread(_rest, connection) == b""


@pytest.mark.parametrize("line", [b"pause\n", b"[]\n", b"\xff\n", b'{"act": 3, "version": 1}\n'])
@on_a_loop
async def test_what_is_no_wish_is_told_so(line: bytes, folder: Path) -> None:
    async with connection_to(folder) as connection:
        connection.sendall(line)
        told = word_of(await asyncio.to_thread(connection.recv, MOST_BYTES), Told)
        assert "no word of swarmrt" in told.error


@on_a_loop
async def test_line_without_an_end_is_bounded(folder: Path) -> None:
    async with connection_to(folder) as connection:
        await asyncio.to_thread(_send_all, connection, b"x" * (2 * MOST_BYTES))
        assert await asyncio.to_thread(_rest, connection) == b""


@on_a_loop
async def test_other_version_is_named_on_both_sides(folder: Path) -> None:
    async with connection_to(folder) as connection:
        connection.sendall(line_of(Asked("pause", version=VERSION + 1)))
        told = word_of(await asyncio.to_thread(connection.recv, MOST_BYTES), Told)
        assert f"version {VERSION + 1} of these words" in told.error
    newer = line_of(Told(1, "", (), "serving", version=VERSION + 1, release="9.9"))
    with pytest.raises(UsageError, match=r"version 2 of these words \(9.9\)"):
        word_of(newer, Told)


@on_a_loop
async def test_so_many_at_a_time_are_answered_and_no_more(folder: Path) -> None:
    asked = 0
    go_on = asyncio.Event()

    async def waits(act: str) -> Told:
        nonlocal asked
        asked += 1
        await go_on.wait()
        return await pauses(act)

    async with answering(waits):
        path = socket_of(os.getpid(), folder)
        connections = [socket.socket(socket.AF_UNIX) for _ in range(MOST_ASKING + 1)]
        for connection in connections:
            connection.connect(str(path))
            _send_all(connection, line_of(Asked("pause")))
        assert await asyncio.to_thread(_rest, connections[-1]) == b""
        assert asked == MOST_ASKING
        go_on.set()
        for connection in connections[:-1]:
            assert await asyncio.to_thread(connection.recv, MOST_BYTES)
        for connection in connections:
            connection.close()


@on_a_loop
async def test_owner_is_answered_once_there_are_descriptors_again(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with answering(pauses):
        with socket.socket(socket.AF_UNIX) as connection:
            resource.setrlimit(resource.RLIMIT_NOFILE, (connection.fileno() + 1, limits[1]))
            try:
                connection.connect(str(socket_of(os.getpid(), folder)))
                _send_all(connection, line_of(Asked("pause")))
                async with asyncio.timeout(PATIENCE_S):
                    while "cannot take what the owner asks" not in caplog.text:
                        await asyncio.sleep(0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            told = word_of(await asyncio.to_thread(connection.recv, MOST_BYTES), Told)
            assert told.state == "paused"


class connection_to:  # noqa: N801 - used as a function is
    """A connection to a process that pauses."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._connection = folder, socket.socket(socket.AF_UNIX)
        self._answering = answering(pauses)

    async def __aenter__(self) -> socket.socket:
        await self._answering.__aenter__()
        self._connection.connect(str(socket_of(os.getpid(), self._folder)))
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        self._connection.close()
        await self._answering.__aexit__(None, None, None)


def _send_all(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
    except OSError:
        """The other end has closed it."""


def _rest(connection: socket.socket) -> bytes:
    """Return what comes until the other end closes it."""
    try:
        return connection.recv(MOST_BYTES)
    except ConnectionError:
        return b""
