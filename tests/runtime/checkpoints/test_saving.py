"""Saving checkpoints on disks that are full, or hang."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarmrt.config_toml import parse_config
from swarmrt.ids import PeerId
from swarmrt.model.stage import Stage
from swarmrt.runtime.checkpoints import disk as disks
from swarmrt.runtime.checkpoints import saving
from swarmrt.runtime.checkpoints.checkpoint import newest_checkpoint
from swarmrt.runtime.checkpoints.disk import Disk
from swarmrt.runtime.checkpoints.saving import Saves
from swarmrt.runtime.state.offering import Shelf
from swarmrt.runtime.state.snapshot import Snapshot, digest_of, write_snapshot
from swarmrt.scheduler.events import CheckpointFailed, CheckpointSaved
from swarmrt.scheduler.instructions import SaveCheckpoint
from tests.disks import full_after
from tests.runtime.state.test_state import Donors, shelf

CONFIG = parse_config(
    {
        "run": {"name": "saved"},
        "model": {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "sequence": 16},
        "stages": {"layers": [1]},
    },
    "the test",
)

TWO_STAGES = parse_config(
    {
        "run": {"name": "saved"},
        "model": {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "sequence": 16},
        "stages": {"layers": [1, 1]},
    },
    "the test",
)


class Story:
    """A trainer's saves of a run with one stage, and one donor that has version 3."""

    def __init__(
        self,
        run_dir: Path,
        passing: Callable[[str], object] = str,
        new_disk: Callable[[], Disk] = Disk,
    ) -> None:
        stage = Stage(CONFIG, 0)
        data = write_snapshot(0, 3, stage.live_state())
        donors = Donors({"a": shelf(Snapshot(0, 3, data, digest_of(data)))})
        self.disk = new_disk()
        self._saves = Saves(CONFIG, run_dir, donors.fetches, self.disk, passing)
        self._digest = stage.digest()

    async def save(self) -> CheckpointSaved | CheckpointFailed:
        what = SaveCheckpoint(3, 1, ((PeerId("a"),),), (self._digest,))
        async with asyncio.timeout(30):
            return await self._saves.save(what)


def test_a_stage_whose_turn_comes_late_is_kept_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first stage takes minutes to collect. Each second of this test is twenty minutes, so a
    snapshot that nobody asks for is let go after a tenth of one."""
    monkeypatch.setattr(saving, "KEEP_S", 0.025)
    pace = 1200.0
    stages = [Stage(TWO_STAGES, number) for number in range(2)]
    shelves = {}
    for number, name in enumerate("ab"):
        data = write_snapshot(number, 3, stages[number].live_state())
        shelves[name] = Shelf(lambda: pace * time.monotonic())
        shelves[name].put(Snapshot(number, 3, data, digest_of(data)))
    donors = Donors(shelves)
    donors.answer_s["a"] = 0.5
    digests = tuple(stage.digest() for stage in stages)
    what = SaveCheckpoint(3, 1, ((PeerId("a"),), (PeerId("b"),)), digests)

    async def tidied() -> CheckpointSaved | CheckpointFailed:
        saves = saving.Saves(TWO_STAGES, tmp_path, donors.fetches, Disk())
        saved = asyncio.create_task(saves.save(what))
        while not saved.done():
            await asyncio.sleep(0.01)
            shelves["b"].tidy()
        return await saved

    assert asyncio.run(tidied()) == CheckpointSaved(3)


def test_a_full_disk_leaves_nothing_half_written_and_the_next_save_is_whole(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        saves = Story(tmp_path)
        for room_bytes in (0, 4096, 1 << 14):
            with full_after(room_bytes):
                failed = await saves.save()
            assert isinstance(failed, CheckpointFailed) and "cannot be written" in failed.reason
            assert not list((tmp_path / "checkpoints").iterdir())
        assert await saves.save() == CheckpointSaved(3)
        assert newest_checkpoint(tmp_path).version == 3

    asyncio.run(story())


class Losing(Disk):
    """A disk that loses the end of a file, once, before its checkpoint has its name."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self._files, self._loses = run_dir / "checkpoints", True

    async def call(
        self, work: Callable[[], Any], size_bytes: int = 0, answer_s: float | None = None
    ) -> Any:
        if getattr(work, "func", work).__name__ == "finish" and self._loses:
            [file] = self._files.glob(".step-*/stage-0.safetensors")
            os.truncate(file, file.stat().st_size - 1)
            self._loses = False
        return await super().call(work, size_bytes, answer_s)


def test_a_checkpoint_that_the_disk_has_lost_is_reported_and_saved_again(tmp_path: Path) -> None:
    async def story() -> None:
        saves = Story(tmp_path, new_disk=lambda: Losing(tmp_path))
        failed = await saves.save()
        assert isinstance(failed, CheckpointFailed)
        assert "stage-0.safetensors: torn" in failed.reason
        assert not list((tmp_path / "checkpoints").iterdir())
        assert await saves.save() == CheckpointSaved(3)
        assert newest_checkpoint(tmp_path).version == 3

    asyncio.run(story())


@pytest.mark.parametrize("where", ["before_rename", "after_rename"])
def test_a_save_that_hangs_is_given_up_and_made_later(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk hangs in the midst of a save. Further saves fail at once until it is back."""
    monkeypatch.setattr(disks, "ANSWER_S", 0.2)
    back = threading.Event()

    def passing(point: str) -> None:
        if point.endswith(where):
            back.wait(60)

    async def story() -> None:
        saves = Story(tmp_path, passing)
        for expected in ("has not answered for", "still does not answer"):
            failed = await saves.save()
            assert isinstance(failed, CheckpointFailed) and expected in failed.reason, failed
        back.set()
        while isinstance(await saves.save(), CheckpointFailed):
            await asyncio.sleep(0.01)
        assert newest_checkpoint(tmp_path).version == 3
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]

    asyncio.run(story())


def test_calls_take_their_turns_and_each_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many that wait behind one another are not late for that."""
    monkeypatch.setattr(disks, "ANSWER_S", 20.0)

    async def story() -> None:
        disk, gone = Disk(), threading.Event()
        calls = [disk.call(lambda: gone.wait(0.01)) for _ in range(20)]
        assert await asyncio.gather(*calls) == [False] * 20
        with pytest.raises(ZeroDivisionError):
            await disk.call(lambda: 1 / 0)
        assert not disk._calls

    asyncio.run(story())
