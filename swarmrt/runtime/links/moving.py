"""Telling a core what moves over its process's links, so that what still moves is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from swarmrt.runtime.links.links import Links
from swarmrt.scheduler.events import Moved

TELL_S = 0.5  # as often as beacons carry it on


async def tell_what_moves(links: Links, feed: Callable[[Moved], None]) -> None:
    """Feed an event whenever something has moved, or waits to. Never returns."""
    told = Moved(0, 0, 0)
    while True:
        await asyncio.sleep(TELL_S)
        tally = links.tally
        moved = Moved(tally.came_bytes, tally.went_bytes, links.queued_bytes)
        if moved != told or moved.left_bytes:
            told = moved
            feed(moved)
