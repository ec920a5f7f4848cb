"""A checkpoint that comes together: under a temporary name, then fsynced and renamed.

Its files are written piece by piece, by whoever has them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from swarmrt.errors import CheckpointError
from swarmrt.runtime.checkpoints.checkpoint import (
    FORMAT,
    REPLACED,
    Checkpoint,
    Manifest,
    StageFile,
    Unreadable,
    checkpoints_in,
    file_of,
    found_in,
    name_of,
    open_checkpoint,
)
from swarmrt.runtime.checkpoints.synced import sync, write_synced
from swarmrt.runtime.state.snapshot import Snapshot


class Draft:
    """A checkpoint that is coming together. `drop` it when nothing comes of it."""

    def __init__(self, run_dir: Path, version: int) -> None:
        """Make its folder. Raises OSError."""
        self._run_dir, self._folder = run_dir, checkpoints_in(run_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob(".step-*"):
            shutil.rmtree(left)  # of writers that were killed
        self._name = name_of(version)
        self._temporary = self._folder / f".{self._name}.tmp"
        self._temporary.mkdir()

    def file_of(self, stage: int) -> Path:
        """Return where the stage's snapshot file belongs."""
        return self._temporary / file_of(stage)

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
        """Read it again, give it its name, then drop all but the `keep` newest of this run.

        `passing(failpoint)` is told where it is. `manifest_of` has the manifest's fields but for
        `format` and `stages`. Raises OSError, and CheckpointError when it cannot be read again,
        or its place is taken.
        """
        folder, name = self._folder, self._name
        for stage in range(len(files)):
            sync(self.file_of(stage))
        manifest = Manifest(format=FORMAT, stages=list(files), **manifest_of)
        text = manifest.model_dump_json(indent=1)
        write_synced(self._temporary / "manifest.json", text.encode())
        sync(self._temporary)
        drafted = open_checkpoint(self._temporary)
        drafted.load()
        final, replaced = folder / name, folder / f"{name}{REPLACED}"
        new = replace(drafted, path=final)
        self._refuse_to_replace(new)
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
        for old in self._up_to(new)[:-keep]:
            _remove(old.path)
        return new

    def _refuse_to_replace(self, new: Checkpoint) -> None:
        """Raise CheckpointError when what has its name is not an earlier one of this run."""
        for one in found_in(self._run_dir):
            if isinstance(one, Unreadable) or one.version != new.version:
                continue
            if one.run != new.run:
                raise CheckpointError(f"{one.path}: is another run's; move it out of the way")
            if one.age > new.age:
                raise CheckpointError(
                    f"{one.path}: was written by another trainer of this run, which goes on at "
                    f"epoch {one.manifest.epoch}; this one is at epoch {new.manifest.epoch}"
                )

    def _up_to(self, new: Checkpoint) -> list[Checkpoint]:
        """Return the checkpoints of this run that are not newer than this one, oldest first."""
        found = [one for one in found_in(self._run_dir) if isinstance(one, Checkpoint)]
        return [one for one in found if one.run == new.run and one.age <= new.age]


def describe_file(snapshot: Snapshot, parameters_digest: str) -> StageFile:
    """Return what a manifest says of a stage's file."""
    return StageFile(
        file=file_of(snapshot.stage),
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
