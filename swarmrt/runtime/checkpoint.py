"""Checkpoints on disk: one safetensors file a stage and a manifest, whole or absent.

    RUN_DIR/checkpoints/step-000050/stage-0.safetensors … manifest.json

A checkpoint comes together under a temporary name, is fsynced and renamed. Its manifest names the
digest of every file, so that a torn or altered one is found before it is used. No state is held in
memory: files are written piece by piece, and read where they are looked at.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarmrt.config import RunConfig, parse_config
from swarmrt.errors import CheckpointError, RunError
from swarmrt.runtime.landing import mapped
from swarmrt.runtime.snapshot import Snapshot, digest_of

FORMAT = 2
READABLE = (1, FORMAT)  # 1 had another digest of the parameters
EPOCH_DIGITS = 8  # so that all are equally long
REPLACED = ".replaced"  # a whole checkpoint, until the one that takes its name is there


class StageFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str = Field(pattern=r"^stage-[0-9]{1,6}\.safetensors$")  # in the checkpoint's own folder
    size_bytes: int
    sha256: str
    parameters_digest: str


class Manifest(BaseModel):
    """The manifest of a checkpoint. Data order and draws follow from the seed and the version."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int
    run: str
    epoch: int
    version: int  # updates applied, which is also the data position, in steps
    seed: int
    config: dict[str, Any]
    stages: list[StageFile]


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    manifest: Manifest

    @property
    def version(self) -> int:
        return self.manifest.version

    @property
    def parameter_digests(self) -> tuple[str, ...]:
        """The digests of parameters by stage; empty when they are not known."""
        if self.manifest.format != FORMAT:
            return ()
        return tuple(stage.parameters_digest for stage in self.manifest.stages)

    @property
    def config(self) -> RunConfig:
        return parse_config(self.manifest.config, str(self.path / "manifest.json"))

    def read_stage(self, stage: int) -> memoryview:
        """Return a stage's snapshot file. Raises CheckpointError if it is torn or altered."""
        entry = self.manifest.stages[stage]
        path = self.path / entry.file
        try:
            data = mapped(path)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
        if len(data) != entry.size_bytes or digest_of(data) != entry.sha256:
            raise CheckpointError(
                f"{path}: corrupted (its digest differs from the manifest's); remove the folder "
                f"{self.path} to continue from an older checkpoint"
            )
        return data


def checkpoints_in(run_dir: Path) -> Path:
    return run_dir / "checkpoints"


class Draft:
    """A checkpoint that is coming together. `drop` it when nothing comes of it."""

    def __init__(self, run_dir: Path, version: int) -> None:
        """Make its folder. Raises OSError."""
        self._folder = checkpoints_in(run_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob(".step-*"):
            shutil.rmtree(left)  # of writers that were killed
        self._name = f"step-{version:06d}"
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
            _sync(self.file_of(stage))
        manifest = Manifest(format=FORMAT, stages=list(files), **manifest_of)
        text = manifest.model_dump_json(indent=1)
        _write_synced(self._temporary / "manifest.json", text.encode())
        _sync(self._temporary)
        final, replaced = folder / name, folder / f"{name}{REPLACED}"
        if final.exists():  # of a timeline that a rollback has left
            if replaced.exists():
                _remove(replaced)
            final.rename(replaced)
        passing("trainer.checkpoint.before_rename")
        self._temporary.rename(final)
        _sync(folder)
        passing("trainer.checkpoint.after_rename")
        if replaced.exists():
            _remove(replaced)
        for old in _whole(folder)[:-keep]:
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


def has_begun(run_dir: Path) -> bool:
    """Return whether a trainer has begun this run, but has not come to its first checkpoint."""
    return (run_dir / "trainer" / "epoch").exists() and not _whole(checkpoints_in(run_dir))


def newest_checkpoint(run_dir: Path) -> Checkpoint:
    """The newest one. Raises CheckpointError when there is none or it cannot be read."""
    if not run_dir.is_dir():
        raise CheckpointError(f"{run_dir}: no such run folder")
    folder = checkpoints_in(run_dir)
    whole = _whole(folder)
    if not whole:
        raise CheckpointError(f"{run_dir}: holds no checkpoint yet")
    return _open(whole[-1])


def checkpoint_of(run_dir: Path, version: int) -> Checkpoint:
    """The one of this version. Raises CheckpointError when it is not there or cannot be read."""
    folder = checkpoints_in(run_dir)
    name = f"step-{version:06d}"
    found = [path for path in _whole(folder) if path.name in (name, name + REPLACED)]
    return _open(found[0] if found else folder / name)


def _open(path: Path) -> Checkpoint:
    try:
        text = (path / "manifest.json").read_text(encoding="utf-8")
        manifest = Manifest.model_validate_json(text)
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path / 'manifest.json'}: cannot be read: {error}") from None
    except ValidationError as error:
        what = error.errors()[0]["msg"]
        raise CheckpointError(
            f"{path / 'manifest.json'}: corrupted ({what}); remove the folder {path} to continue "
            "from an older checkpoint"
        ) from None
    if manifest.format not in READABLE:
        raise CheckpointError(f"{path}: format {manifest.format}, this swarmrt reads {FORMAT}")
    return Checkpoint(path, manifest)


def read_epoch(run_dir: Path) -> int:
    """The highest epoch that a trainer of this run has written down; 0 for none.

    Raises CheckpointError when the file is not a number.
    """
    path = run_dir / "trainer" / "epoch"
    try:
        return int(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None


def read_born(run_dir: Path) -> int:
    """Return when the run in this folder was begun, in seconds since 1970; from now on, if that
    has not been written down yet. Raises CheckpointError."""
    path = run_dir / "trainer" / "born"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_synced(path, str(int(time.time())).encode())
        return int(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: does not say when the run was begun: {error}") from None


def write_epoch(run_dir: Path, epoch: int) -> None:
    """Write down an epoch before anyone is told of it, so that the next incarnation's is higher.

    It is written over the last one, which takes no room on a full disk. Raises RunError.
    """
    path = run_dir / "trainer" / "epoch"
    text = f"{epoch:0{EPOCH_DIGITS}}".encode()
    try:
        if path.exists() and path.stat().st_size == len(text):
            with path.open("r+b") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(".epoch.tmp")
        _write_synced(temporary, text)
        temporary.replace(path)
    except OSError as error:
        raise RunError(
            f"{path}: the epoch cannot be written down: {error.strerror}; make room, and go on "
            "with --resume: the peers keep what they hold"
        ) from None


def _whole(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first. Only whole ones have their final name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("step-*")) if folder.is_dir() else ():
        found.setdefault(path.name.removesuffix(REPLACED), path)  # the new one comes first
    return list(found.values())


def _remove(path: Path) -> None:
    """Remove a checkpoint. It loses its name before its files, so that what has the name is
    whole."""
    gone = path.with_name(f".{path.name}.gone")
    path.rename(gone)
    shutil.rmtree(gone)


def _write_synced(path: Path, data: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Have a file or a folder on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
