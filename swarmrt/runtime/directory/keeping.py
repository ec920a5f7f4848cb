"""Keeping a record in the directory: written when it changes and before it expires.

The directory is weather. A write that fails is tried again, soon and then less often; it ends
nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from swarmrt.errors import DirectoryError

log = logging.getLogger("swarmrt.directory")

AGAIN_S = 1.0  # before the first try after one that failed; each time twice as long


async def keep_written(
    write: Callable[[], Awaitable[None]], changed: asyncio.Event, every: Callable[[], float]
) -> None:
    """Write a record now, once in so many seconds as `every` says by then, and soon after `changed`
    is set. Never returns.

    Only a DirectoryError is tried again.
    """
    failures = 0
    while True:
        changed.clear()
        try:
            await write()
        except DirectoryError as error:
            failures += 1
            if failures == 1:
                log.warning("%s; it is tried again and again", error)
            await asyncio.sleep(min(every(), AGAIN_S * 2 ** min(failures - 1, 16)))
            continue
        if failures:
            log.warning("the directory has the record again, after %d tries in vain", failures)
        failures = 0
        try:
            async with asyncio.timeout(every()):
                await changed.wait()
        except TimeoutError:
            continue  # time to refresh the record
