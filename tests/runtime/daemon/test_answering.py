"""Finding out that a daemon does not answer, and when it does again."""

from __future__ import annotations

import asyncio

import pytest

from swarmrt.runtime.daemon import answering
from swarmrt.runtime.daemon.answering import watch_answers


@pytest.mark.parametrize("how", ["hangs", "is gone"])
def test_who_does_not_answer_is_said_so_once_and_when_it_is_back(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answering, "ANSWER_S", 0.01)
    monkeypatch.setattr(answering, "EVERY_S", 0.001)

    async def story() -> None:
        asked, answered = 0, asyncio.Event()

        async def ask() -> None:
            nonlocal asked
            asked += 1
            if 3 <= asked < 6:
                if how == "is gone":
                    raise ConnectionRefusedError(how)
                await asyncio.Event().wait()
            if asked == 8:
                answered.set()

        watch = asyncio.create_task(watch_answers(ask))
        async with asyncio.timeout(30):
            await answered.wait()
        watch.cancel()

    asyncio.run(story())
    said = [record.message for record in caplog.records]
    assert len(said) == 2 and "has not answered" in said[0] and "answers again" in said[1], said
