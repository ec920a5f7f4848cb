"""Telling a core what moves over its process's links, so that what still moves is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from swarmrt.ids import PeerId
from swarmrt.runtime.links.links import Links
from swarmrt.scheduler.events import Moved

TELL_S = 0.5  # as often as beacons carry it on


async def tell_what_moves(links: Links, feed: Callable[[Moved], None]) -> None:
    """Feed an event whenever something has moved, or waits to. Never returns."""
    came_bytes = 0
    gone_before: frozenset[tuple[PeerId, int, int]] = frozenset()
    while True:
        await asyncio.sleep(TELL_S)
        tally, gone = links.tally, links.gone()
        moving = [link for link in gone if link[2] or (link[1] and link not in gone_before)]
        if moving or tally.came_bytes != came_bytes:
            came_bytes, gone_before = tally.came_bytes, frozenset(gone)
            feed(Moved(came_bytes, tally.went_bytes, links.queued_bytes, tuple(moving)))
