"""A checkpoint that comes together: under a temporary name, then fsynced and renamed.

Its files are written piece by piece, by whoever has them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from swarmrt.runtime.checkpoint import (
    FORMAT,
    REPLACED,
    Checkpoint,
    Manifest,
    StageFile,
    checkpoints_in,
    name_of,
    whole_in,
)
from swarmrt.runtime.snapshot import Snapshot
from swarmrt.runtime.synced import sync, write_synced


class Draft:
    """A checkpoint that is coming together. `drop` it when nothing comes of it."""

    def __init__(self, run_dir: Path, version: int) -> None:
        """Make its folder. Raises OSError."""
        self._folder = checkpoints_in(run_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob(".step-*"):
            shutil.rmtree(left)  # of writers that were killed
        self._name = name_of(version)
        self._temporary = self._folder / f".{self._name}.tmp"
        self._temporary.mkdir()

    def file_of(self, stage: int) -> Path:
        """Return where the stage's snapshot file belongs."""
        return self._temporary / f"stage-{stage}.safetensors"

    def drop(self) -> None:
        """Leave nothing of it, unless it is finished."""
        if self._temporary.exists():
            shutil.rmtree(self._temporary)

    def finish(
        self,
        manifest_of: dict[str, Any],
        files: Sequence[StageFile],
        keep: int,
        passing: Callable[[str], object] = str,
    ) -> Checkpoint:
        """Give it its name, then drop all but the `keep` newest.

        `passing(failpoint)` is told where it is. `manifest_of` has the manifest's fields but for
        `format` and `stages`. Raises OSError.
        """
        folder, name = self._folder, self._name
        for stage in range(len(files)):
            sync(self.file_of(stage))
        manifest = Manifest(format=FORMAT, stages=list(files), **manifest_of)
        text = manifest.model_dump_json(indent=1)
        write_synced(self._temporary / "manifest.json", text.encode())
        sync(self._temporary)
        final, replaced = folder / name, folder / f"{name}{REPLACED}"
        if final.exists():  # of a timeline that a rollback has left
            if replaced.exists():
                _remove(replaced)
            final.rename(replaced)
        passing("trainer.checkpoint.before_rename")
        self._temporary.rename(final)
        sync(folder)
        passing("trainer.checkpoint.after_rename")
        if replaced.exists():
            _remove(replaced)
        for old in whole_in(folder)[:-keep]:
            _remove(old)
        return Checkpoint(final, manifest)


def describe_file(snapshot: Snapshot, parameters_digest: str) -> StageFile:
    """Return what a manifest says of a stage's file."""
    return StageFile(
        file=f"stage-{snapshot.stage}.safetensors",
        size_bytes=len(snapshot.data),
        sha256=snapshot.digest,
        parameters_digest=parameters_digest,
    )


def _remove(path: Path) -> None:
    """Remove a checkpoint. It loses its name before its files, so that what has the name is
    whole."""
    gone = path.with_name(f".{path.name}.gone")
    path.rename(gone)
    shutil.rmtree(gone)
