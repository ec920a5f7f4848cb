"""Looking up in the directory where a run is, and who serves its stages, again and again."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from swarmrt.errors import DirectoryError
from swarmrt.ids import PeerId, RunId
from swarmrt.runtime.directory.directory import Directory
from swarmrt.runtime.links.arriving import SAY_S
from swarmrt.runtime.links.links import Links
from swarmrt.scheduler.timing.intervals import directory_s
from swarmrt.trust.statements import Age, Published

log = logging.getLogger("swarmrt.network")

LOOK_S, MAX_LOOK_S = 1.0, 15.0  # between two looks for a run that is not there
LOOK_SHARE = 1 / 60  # of the time that it has been waited for
MOST_WAITS = 8  # times `links.refresh_s`, between two looks at a stage where nothing changes


async def find_run(
    directory: Directory,
    run: RunId,
    *,
    wait: bool,
    newer_than: Age = (0, -1),
    say: Callable[[str], None] = log.warning,
) -> Published:
    """Return the run's record; with `wait`, as soon as it is published. Raises DirectoryError.

    One that is older than `newer_than`, which was seen before, is that of a trainer of the past.
    Who waits also waits for a directory that does not answer, and is told what for: `say` is called
    at once, and again from time to time.
    """
    said_at = -math.inf
    began_at = time.monotonic()
    while True:
        record = await (published_run(directory, run, say) if wait else directory.find_run(run))
        if record is not None and record.age >= newer_than:
            return record
        if not wait:
            raise DirectoryError(
                await directory.why_clocks_hide()
                or f"{_why_not_found(run, record)}; start it with `swarmrt train`, or "
                "pass --wait to serve it as soon as it is published"
            )
        if time.monotonic() - said_at >= SAY_S:
            said_at = time.monotonic()
            why = await directory.why_clocks_hide() or _why_not_found(run, record)
            say(f"waiting for run {run}: {why}; it is looked for again and again")
        await asyncio.sleep(_pause_s(began_at))  # the directory cannot be subscribed to


async def published_run(
    directory: Directory, run: RunId, say: Callable[[str], None] = log.warning
) -> Published | None:
    """Return what the directory has of a run, None if that is nothing, as soon as it answers; `say`
    is told now and then that it does not."""
    began_at, said_at = time.monotonic(), -math.inf
    while True:
        try:
            return await directory.find_run(run)
        except DirectoryError as error:
            if time.monotonic() - said_at >= SAY_S:
                said_at = time.monotonic()
                say(f"looking for run {run}: {error}; it is tried again and again")
        await asyncio.sleep(_pause_s(began_at))


def _pause_s(began_at: float) -> float:
    """Return how long to wait before the next look at what may come at any time: longer, the longer
    it has not."""
    return min(MAX_LOOK_S, max(LOOK_S, LOOK_SHARE * (time.monotonic() - began_at)))


def _why_not_found(run: RunId, record: Published | None) -> str:
    newer = "" if record is None else " that is newer than what was seen of it before"
    return f"the directory knows no run {run}{newer}"


class Reading:
    """The reading of the directory by one process, which takes in so many records a second at the
    most, of all the stages that it watches."""

    def __init__(self, refresh_s: float) -> None:
        self._refresh_s = refresh_s
        self._records: dict[int, int] = {}  # by stage, when it was last read

    def found(self, stage: int, records: int) -> None:
        """Take note of how many there are."""
        self._records[stage] = records

    def least_s(self) -> float:
        """Return what is between two looks at a stage, even when somebody has come."""
        return directory_s(sum(self._records.values()), 0.0)

    def next_s(self, last_s: float, *, is_news: bool) -> float:
        """Return what is between the last look and the next: longer while nothing changes."""
        every_s = max(self._refresh_s, self.least_s())
        return every_s if is_news else max(every_s, min(2 * last_s, MOST_WAITS * self._refresh_s))


async def watch_stage(
    directory: Directory,
    links: Links,
    run: RunId,
    stage: int,
    statuses: frozenset[str],
    seen: Callable[[int, tuple[PeerId, ...]], None],
    reading: Reading,
    again: asyncio.Event | None = None,
) -> None:
    """Read a stage's records again and again; `seen(stage, peers)` is told of all of them.

    While nothing changes, less and less often: who comes is told of by others, and sets `again`.
    """
    wait_s, before = reading.next_s(0.0, is_news=True), None
    while True:
        try:
            records = await directory.peers(run, stage)
        except DirectoryError as error:
            log.warning("stage %d of %s: %s", stage, run, error)
        else:
            present = [record for record in records if record.status in statuses]
            for record in present:
                links.know(record.peer, record.known_addresses)
            peers = tuple(sorted(record.peer for record in present))
            seen(stage, peers)
            is_news = not peers or peers != before
            reading.found(stage, len(records))
            wait_s = reading.next_s(wait_s, is_news=is_news)
            before = peers
        least_s = min(wait_s, reading.least_s())
        await asyncio.sleep(least_s)
        await _pause(wait_s - least_s, again)


async def _pause(seconds: float, again: asyncio.Event | None) -> None:
    """Wait for that long, or until it is set."""
    if again is None:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await again.wait()
    except TimeoutError:
        return
    again.clear()
