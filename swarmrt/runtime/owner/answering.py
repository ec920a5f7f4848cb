"""The local socket at which a process that serves is asked to pause, to resume or to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from swarmrt.errors import UsageError
from swarmrt.runtime.limits.sparing import Sparing
from swarmrt.runtime.owner.folder import (
    check_is_ours,
    listening,
    remove_if_empty,
    socket_of,
    sockets_folder,
    sweep,
)
from swarmrt.runtime.owner.words import MOST_BYTES, Asked, Told, line_of, word_of

log = logging.getLogger("swarmrt.owner")
log.addFilter(Sparing())

MOST_ASKING = 16  # at a time
LINE_S = 5.0  # for a line to come, or to go
ACCEPT_AGAIN_S = 0.1  # when the system has no more descriptors, say

Answer = Callable[[str], Awaitable[Told]]  # of what is asked


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[None]:
    """Take what the owner asks meanwhile. Without a socket for that the process serves all the
    same."""
    try:
        path, listener = await asyncio.to_thread(_listen)
    except (OSError, UsageError) as error:
        log.warning("`swarmrt pause` will not find this peer: %s", error)
        yield
        return
    task = asyncio.create_task(_take_all(listener, answer))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        remove_if_empty(path.parent)
        task.cancel()
        await asyncio.wait([task])
        listener.close()
        if not task.cancelled() and (bug := task.exception()) is not None:
            raise bug


def _listen() -> tuple[Path, socket.socket]:
    """Return this process's socket, and its path. Raises OSError, UsageError."""
    for is_last in (False, True):
        folder = sockets_folder()
        path = socket_of(os.getpid(), folder)
        sweep(folder)
        try:
            return path, listening(path)
        except FileNotFoundError:  # who served here last has just removed the folder
            if is_last:
                raise
    raise AssertionError("it has listened, or failed to")


async def _take_all(listener: socket.socket, answer: Answer) -> None:
    """Answer whoever connects, so many at a time. Never returns."""
    loop, asking = asyncio.get_running_loop(), 0

    def over(_: asyncio.Task[None]) -> None:
        nonlocal asking
        asking -= 1

    async with asyncio.TaskGroup() as tasks:
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("cannot take what the owner asks: %s", error)
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            if asking >= MOST_ASKING:
                connection.close()
                continue
            asking += 1
            tasks.create_task(_take(connection, answer)).add_done_callback(over)


async def _take(connection: socket.socket, answer: Answer) -> None:
    """Answer one wish."""
    loop = asyncio.get_running_loop()
    with connection:
        try:
            connection.setblocking(False)
            check_is_ours(connection, "who asks")
            async with asyncio.timeout(LINE_S):
                line = await _line_from(connection)
            if not line:
                return  # another process has looked if this one is there
            told = await _told(line, answer)
            async with asyncio.timeout(LINE_S):
                await loop.sock_sendall(connection, line_of(told))
        except TimeoutError:
            log.warning(
                "somebody at the local socket says or takes no whole line in %.0f s", LINE_S
            )
        except (OSError, UsageError) as error:
            log.warning("somebody at the local socket was not answered: %s", error)


async def _told(line: bytes, answer: Answer) -> Told:
    """Return what is said to a wish, of another version too."""
    try:
        return await answer(word_of(line, Asked).act)
    except UsageError as error:
        return Told(os.getpid(), "", (), "serving", error=str(error))


async def _line_from(connection: socket.socket) -> bytes:
    """Return what comes until the end of a line; nothing from who says nothing. Raises UsageError
    when that is no wish."""
    loop, line = asyncio.get_running_loop(), b""
    while not line.endswith(b"\n"):
        data = await loop.sock_recv(connection, MOST_BYTES)
        line += data
        if not line:
            return line
        if not data or len(line) > MOST_BYTES:
            raise UsageError("no wish has come")
    return line
