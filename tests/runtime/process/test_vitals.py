"""What a process writes of itself."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from swarmrt.runtime.process import vitals


def test_loop_that_is_held_up_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "LINE_S", 0.4)
    path = tmp_path / "peer" / "vitals.jsonl"

    async def story() -> None:
        watching = asyncio.create_task(vitals.watch_vitals(path, {"links": 3, "memory": 0}))
        await asyncio.sleep(0.1)
        time.sleep(0.3)  # noqa: ASYNC251 - holds up the loop, on purpose
        while not path.read_text():
            await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(story())
    line = json.loads(path.read_text().splitlines()[0])
    assert line["loop_lag_worst_s"] > 0.2
    assert 0 <= line["loop_lag_median_s"] <= line["loop_lag_worst_s"]
    assert line["refused"] == {"links": 3}
    assert line["resident_bytes"] is None or line["resident_bytes"] > 1 << 20
    assert line["cpu_s"] > 0
    assert line["waited_s"] is None or line["waited_s"] >= 0
    assert line["cores"] >= 1
    assert line["peak_bytes"] is None or line["peak_bytes"] >= line["resident_bytes"]
