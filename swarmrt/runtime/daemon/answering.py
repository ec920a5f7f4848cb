"""Asking the daemon of this process whether it answers, again and again, and telling people.

One that hangs is not ended. Links that do not go through it work, and it may come back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("swarmrt.daemon")

EVERY_S = 10.0  # between two questions
ANSWER_S = 10.0  # for an answer


async def watch_answers(ask: Callable[[], Awaitable[object]]) -> None:
    """Ask, and say when no answer has come in time, and when one comes again. Never returns.

    An OSError or EOFError counts as no answer: who is gone is found out otherwise.
    """
    loop = asyncio.get_running_loop()
    silent_since: float | None = None
    while True:
        asked_at = loop.time()
        try:
            async with asyncio.timeout(ANSWER_S):
                await ask()
        except (OSError, EOFError):  # a time-out too
            if silent_since is None:
                silent_since = asked_at
                log.warning(
                    "the libp2p daemon of this process has not answered for %.0f s: the directory, "
                    "and links that go through it, stand still until it does",
                    ANSWER_S,
                )
        else:
            if silent_since is not None:
                silent_s = loop.time() - silent_since
                log.warning("the libp2p daemon answers again, after %.0f s", silent_s)
            silent_since = None
        await asyncio.sleep(EVERY_S)
