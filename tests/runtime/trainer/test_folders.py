"""A run's folder is nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmrt.config import RunConfig
from swarmrt.errors import UsageError
from swarmrt.runtime.trainer.folders import new_run_dir


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [new_run_dir(RunConfig()) for _ in range(3)]
    assert len(set(folders)) == 3 and all(folder.is_dir() for folder in folders)


def test_a_place_that_takes_no_folders_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(UsageError, match=r"runs/.*: cannot be written: Not a directory"):
        new_run_dir(RunConfig())
