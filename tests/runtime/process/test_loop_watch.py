"""An event loop that stands still, and what is said of it."""

from __future__ import annotations

import asyncio

import pytest

from swarmrt.runtime.faults.failpoints import Failpoints, Rule
from swarmrt.runtime.process import loop_watch
from swarmrt.runtime.process.loop_watch import watching_loop

POINT = "trainer.epoch.before_write"


def test_a_loop_that_stands_still_says_so_and_where(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failpoint that takes long stands for a disk that does not answer."""
    monkeypatch.setattr(loop_watch, "BEAT_S", 0.02)
    monkeypatch.setattr(loop_watch, "STILL_S", 0.5)

    async def story() -> None:
        with watching_loop():
            await asyncio.sleep(0.1)
            Failpoints([Rule(POINT, "delay", 3.0, 1)]).at(POINT)
            await asyncio.sleep(0.1)

    asyncio.run(story())
    said = [record.message for record in caplog.records]
    assert len(said) == 1 and "s, in _do (failpoints.py, line" in said[0], said
