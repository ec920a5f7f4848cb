"""Checkpoints on disk: one safetensors file a stage and a manifest, whole or absent.

    RUN_DIR/checkpoints/step-000050/stage-0.safetensors … manifest.json

Its manifest names the digest of every file, so that a torn or altered one is found before it is
used. No state is held in memory: files are read where they are looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.errors import CheckpointError, ConfigError
from swarmrt.run_identity import RELEASE, fingerprint
from swarmrt.runtime.state.landing import mapped
from swarmrt.runtime.state.snapshot import digest_of, read_snapshot

FORMAT = 2
READABLE = (1, FORMAT)  # 1 had another digest of the parameters
State = dict[str, torch.Tensor]
REPLACED = ".replaced"  # a whole checkpoint, until the one that takes its name is there
NAME = re.compile(rf"step-([0-9]{{6,18}})({re.escape(REPLACED)})?")


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
    fingerprint: str = ""  # of the configuration, as its writer's release of swarmrt knows it
    config: dict[str, Any]
    stages: list[StageFile]


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    manifest: Manifest
    written_at: float  # in seconds since 1970

    @property
    def version(self) -> int:
        return self.manifest.version

    @property
    def age(self) -> tuple[int, int]:
        """The order of a run's checkpoints: a higher epoch has gone on from one of before, and
        has left behind what was made after that."""
        return self.manifest.epoch, self.manifest.version

    @property
    def run(self) -> tuple[str, int]:
        """The name and the seed, which tell its run from others in the same folder."""
        return self.manifest.run, self.manifest.seed

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
        _refuse_torn(path, len(data), entry)
        if digest_of(data) != entry.sha256:
            raise CheckpointError(f"{path}: corrupted (its digest differs from the manifest's)")
        return data

    def load(self) -> list[State]:
        """Read all of it, and return the stages' states. Raises CheckpointError."""
        try:
            config = self.config
        except ConfigError as error:
            raise CheckpointError(str(error)) from None
        manifest, num_stages = self.path / "manifest.json", config.num_stages
        is_ours = config.run.swarmrt == RELEASE
        if is_ours and self.manifest.fingerprint not in ("", fingerprint(config)):
            raise CheckpointError(f"{manifest}: corrupted (its configuration is another run's)")
        files = [entry.file for entry in self.manifest.stages]
        if files != [file_of(stage) for stage in range(num_stages)]:
            raise CheckpointError(f"{manifest}: corrupted ({num_stages} stages, files {files})")
        return [
            read_snapshot(self.read_stage(stage), str(self.path / entry.file))
            for stage, entry in enumerate(self.manifest.stages)
        ]


@dataclass(frozen=True)
class Unreadable:
    """A folder that has a checkpoint's name, and nothing that can be used."""

    path: Path
    version: int
    reason: str

    def load(self) -> list[State]:
        """Raise CheckpointError, as a checkpoint does that cannot be read."""
        raise CheckpointError(self.reason)


def file_of(stage: int) -> str:
    """Return the name of a stage's file."""
    return f"stage-{stage}.safetensors"


def checkpoints_in(run_dir: Path) -> Path:
    return run_dir / "checkpoints"


def has_begun(run_dir: Path) -> bool:
    """Return whether a trainer has begun this run, but has not come to its first checkpoint."""
    return (run_dir / "trainer" / "epoch").exists() and not _folders(run_dir)


def newest_checkpoint(run_dir: Path) -> Checkpoint:
    """The newest one, which was read whole. Raises CheckpointError when there is none, or when it
    cannot be read: with the older one that can."""
    checkpoint, _ = load_newest(run_dir)
    return checkpoint


def load_newest(run_dir: Path) -> tuple[Checkpoint, list[State]]:
    """Return the newest one with the states of its stages, as `newest_checkpoint` does."""
    spoilt: dict[Path, str] = {}
    for one in reversed(all_checkpoints(run_dir)):
        try:
            states = one.load()
        except CheckpointError as error:
            spoilt[one.path] = str(error)
            continue
        if isinstance(one, Checkpoint) and not spoilt:
            return one, states
        raise _spoilt(spoilt, f"that of step {one.version} is whole", "to use it")
    raise _spoilt(spoilt, "no other one is whole", "to go on from what the peers hold, or anew")


def _spoilt(found: dict[Path, str], left: str, aim: str) -> CheckpointError:
    """Return the error of checkpoints that cannot be read, with what can be done without them."""
    first, names = next(iter(found.values())), ", ".join(map(str, found))
    return CheckpointError(f"{first}; {left}: move {names} out of the way {aim}")


def checkpoint_of(run_dir: Path, version: int) -> Checkpoint:
    """The one of this version. Raises CheckpointError when it is not there or cannot be read."""
    path = _folders(run_dir).get(version)
    if path is None:
        raise CheckpointError(f"{run_dir}: holds no checkpoint of step {version}")
    return open_checkpoint(path)


def open_checkpoint(path: Path) -> Checkpoint:
    """Read its manifest, and see that its files have their sizes. Raises CheckpointError."""
    try:
        text = (path / "manifest.json").read_text(encoding="utf-8")
        written_at = (path / "manifest.json").stat().st_mtime
        manifest = Manifest.model_validate_json(text)
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path / 'manifest.json'}: cannot be read: {error}") from None
    except ValidationError as error:
        what = error.errors()[0]["msg"]
        raise CheckpointError(f"{path / 'manifest.json'}: corrupted ({what})") from None
    if manifest.format not in READABLE:
        raise CheckpointError(f"{path}: format {manifest.format}, this swarmrt reads {FORMAT}")
    for entry in manifest.stages:
        file = path / entry.file
        try:
            _refuse_torn(file, file.stat().st_size, entry)
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
    return Checkpoint(path, manifest, written_at)


def _refuse_torn(file: Path, size_bytes: int, entry: StageFile) -> None:
    if size_bytes != entry.size_bytes:
        raise CheckpointError(f"{file}: torn (it has {size_bytes} of {entry.size_bytes} bytes)")


def name_of(version: int) -> str:
    """Return the name of a checkpoint's folder."""
    return f"step-{version:06d}"


def all_checkpoints(run_dir: Path) -> list[Checkpoint | Unreadable]:
    """Return what `found_in` does. Raises CheckpointError when there is none."""
    if not run_dir.is_dir():
        raise CheckpointError(f"{run_dir}: no such run folder")
    found = found_in(run_dir)
    if not found:
        raise CheckpointError(f"{run_dir}: holds no checkpoint yet")
    return found


def found_in(run_dir: Path) -> list[Checkpoint | Unreadable]:
    """Return all checkpoints, oldest first. What cannot be read is taken for one of the newest
    epoch."""
    found: list[Checkpoint | Unreadable] = []
    for version, path in _folders(run_dir).items():
        try:
            found.append(open_checkpoint(path))
        except CheckpointError as error:
            found.append(Unreadable(path, version, str(error)))
    epoch = max((one.manifest.epoch for one in found if isinstance(one, Checkpoint)), default=0)
    return sorted(
        found, key=lambda one: one.age if isinstance(one, Checkpoint) else (epoch, one.version)
    )


def _folders(run_dir: Path) -> dict[int, Path]:
    """Return checkpoints' folders by version. Only whole ones have their final name."""
    found: dict[int, Path] = {}
    folder = checkpoints_in(run_dir)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := NAME.fullmatch(path.name):
            found.setdefault(int(match[1]), path)  # the new one comes first
    return found
