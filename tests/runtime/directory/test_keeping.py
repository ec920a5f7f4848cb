"""Records that are kept in a directory which does not always answer."""

from __future__ import annotations

import asyncio

import pytest

from swarmrt.errors import DirectoryError, UsageError
from swarmrt.runtime.directory import keeping
from swarmrt.runtime.directory.keeping import keep_written


def test_a_write_that_fails_is_tried_again_and_ends_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeping, "AGAIN_S", 1e-4)

    async def story() -> int:
        tries, written, changed = 0, asyncio.Event(), asyncio.Event()

        async def write() -> None:
            nonlocal tries
            tries += 1
            if tries % 6:
                raise DirectoryError("the directory did not take it in 10 s")
            written.set()

        keeping_it = asyncio.create_task(keep_written(write, changed, lambda: 60.0))
        async with asyncio.timeout(20):
            await written.wait()
            written.clear()
            await asyncio.sleep(0)
            changed.set()
            await written.wait()
        keeping_it.cancel()
        return tries

    assert asyncio.run(story()) == 12
    said = [record.message for record in caplog.records]
    assert len(said) == 4 and "again and again" in said[0] and "after 5 tries" in said[1], said


def test_what_cannot_get_better_is_not_tried_again() -> None:
    async def write() -> None:
        raise UsageError("the configuration makes too large a record")

    with pytest.raises(UsageError):
        asyncio.run(keep_written(write, asyncio.Event(), lambda: 60.0))
