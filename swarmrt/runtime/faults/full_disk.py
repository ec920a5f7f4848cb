"""A full disk, made on purpose: for a while this process cannot write past the first bytes of any
file.

It is the system's limit on the size of files (RLIMIT_FSIZE), which needs no rights and no disk of
its own. A write fails halfway, as on a full disk, with "File too large" in place of "No space left
on device". What has a block already can be written over; empty files and folders can be made.
"""

from __future__ import annotations

import asyncio
import resource

ROOM_BYTES = 4096  # of each file: the block that it has already


class FullDisk:
    """The disk of this process. Use it on the event loop."""

    def __init__(self) -> None:
        self._limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._timer: asyncio.TimerHandle | None = None

    def fill(self, seconds: float) -> None:
        """Let it be full until then, or for as long as it was to be anyway."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        if self._timer is not None:
            until = max(until, self._timer.when())
            self._timer.cancel()
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, self._limit[1]))
        self._timer = loop.call_at(until, self._make_room)

    def _make_room(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limit)
        self._timer = None
