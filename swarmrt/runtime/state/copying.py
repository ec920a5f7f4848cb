"""The copies of a stage's state that others get, made beside what the stage computes.

Forwards and backwards only read a state, so they go on meanwhile. Whatever changes it waits for the
copy first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import Future, wait
from functools import partial

import torch

from swarmrt.runtime.computing.transfers import Transfers
from swarmrt.runtime.process.aside import Aside
from swarmrt.runtime.state.offering import Shelf
from swarmrt.runtime.state.snapshot import Snapshot, digest_of, write_snapshot

log = logging.getLogger("swarmrt.peer")


class Copying:
    """The copies of one stage's state. `close` at the end; all else is for the torch thread."""

    def __init__(self, stage_index: int, transfers: Transfers) -> None:
        self._stage_index, self._transfers = stage_index, transfers
        self._thread = Aside("snapshot")
        self._newest: Future[memoryview] | None = None

    def begin(self, version: int, state: Mapping[str, torch.Tensor]) -> Future[memoryview]:
        """Begin a copy; what comes of it is a snapshot's file in memory."""
        write = partial(write_snapshot, self._stage_index, version, state)
        self._newest = self._thread.submit(partial(self._transfers.beside, write))
        return self._newest

    def wait(self) -> None:
        """Block until nothing reads the state any more."""
        if self._newest is not None:
            wait([self._newest])
            self._newest = None

    def close(self) -> None:
        """Wait for what is under way, for a while. Call it beside the loop: that may hang."""
        self._thread.close()


async def keep_copy(shelf: Shelf, stage: int, version: int, copied: Future[memoryview]) -> None:
    """Keep what was promised for whoever asks. It is copied and hashed beside the next step."""
    try:
        data = await asyncio.wrap_future(copied)
        its_digest = await asyncio.to_thread(digest_of, data)
        shelf.put(Snapshot(stage, version, data, its_digest))
    except MemoryError:
        log.warning("no memory for a copy of version %d: others have to give it", version)
    finally:
        shelf.break_promise(stage, version)
