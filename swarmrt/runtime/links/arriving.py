"""Coming into a swarm: at the addresses that were given, and at those that are remembered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from swarmrt.errors import DirectoryError
from swarmrt.runtime.links.first_contact import answering

T = TypeVar("T")

FIRST_PAUSE_S = 1.0  # before the directory is tried again; doubled by each failure
MAX_PAUSE_S = 30.0
SAY_S = 30.0  # between two words about it


async def arrive(
    attempt: Callable[[Sequence[str]], Awaitable[T]],
    join: Sequence[str],
    remembered: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
    look: Callable[[Sequence[str]], Awaitable[list[str]]] = answering,
) -> T:
    """Return what `attempt(addresses)` returns once it gets into the directory.

    Who was given no address to join at, and remembers some that do not answer, is the first one.
    With `say`, the directory is waited for, and `say` is told so. `look` tells which of many
    addresses answer: if none does, those that were given are tried all the same. Raises
    DirectoryError.
    """
    known = [*join, *(a for a in remembered if a not in join)]
    pause_s, said_at = FIRST_PAUSE_S, float("-inf")
    while True:
        try:
            return await attempt(await look(known) or join)
        except DirectoryError as error:
            if remembered and not join:
                return await attempt([])
            if say is None:
                raise
            if time.monotonic() - said_at >= SAY_S:
                said_at = time.monotonic()
                say(f"waiting: {error}")
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, MAX_PAUSE_S)
