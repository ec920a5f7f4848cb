"""The state that a peer leaves in a file when it stops, and takes up again when it starts.

    DIR/stage-2.json                     what the state is of, and which file it is in
    DIR/stage-2-3f06a51c.safetensors     as a checkpoint's file of the stage

A stage whose peers were all stopped goes on from what they have left.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from swarmrt.config import RunConfig
from swarmrt.errors import CheckpointError, RunError, UsageError
from swarmrt.model.stage import Stage
from swarmrt.runtime.state.landing import mapped, writable
from swarmrt.runtime.state.snapshot import digest_of, read_snapshot, write_snapshot


class Left(BaseModel):
    """The description of a state that was left."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    run: str  # NAME@FINGERPRINT
    born: int  # when the run was begun, in seconds since 1970
    config: str  # digest of what decides the weights
    stage: int
    version: int
    applied: int  # round of the update that made it; -1 if not known
    norm: float  # of that update
    parameters_digest: str
    sha256: str

    @property
    def file(self) -> str:
        """The name of the file that it is in."""
        return f"stage-{self.stage}-{self.sha256[:8]}.safetensors"


@dataclass(frozen=True)
class LeftState:
    """The place of one stage's state in a folder."""

    folder: Path
    run: str
    born: int
    stage: int

    def take_up(self, config: RunConfig, stage: Stage) -> Left | None:
        """Load what was left into the stage, and return what it is; None when there is nothing.

        Raises UsageError when it is of something else, CheckpointError when it is damaged.
        """
        try:
            text = self._about.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{self._about}: cannot be read: {error}") from None
        try:
            left = Left.model_validate_json(text)
        except ValidationError as error:
            what = error.errors()[0]["msg"]
            raise CheckpointError(f"{self._about}: is no description of a state: {what}") from None
        self._refuse_others(left, config)
        file = self.folder / left.file
        try:
            data = mapped(file)
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
        if digest_of(data) != left.sha256:
            raise CheckpointError(
                f"{file}: corrupted (its digest is not the one in {self._about.name}); remove both "
                "files to start without them"
            )
        stage.load_state(read_snapshot(data, str(file)), left.version)
        return left

    def _refuse_others(self, left: Left, config: RunConfig) -> None:
        """Raise UsageError when taking it up, and writing over it later, would lose something."""
        different = [
            what
            for what, there, here in (
                (f"run {left.run}", left.run, self.run),
                ("an earlier run of that name", left.born, self.born),
                (f"stage {left.stage}", left.stage, self.stage),
                ("another configuration of the model", left.config, _digest_of_config(config)),
            )
            if there != here
        ]
        if different:
            raise UsageError(
                f"{self._about}: that state is of {', '.join(different)}; give --state another "
                "folder, or remove it"
            )

    def leave(self, config: RunConfig, stage: Stage, applied: int, norm: float) -> None:
        """Write the stage's state, in the place of what was there. Raises RunError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = self._about.with_suffix(".tmp")
            try:
                self._leave(config, stage, applied, norm, temporary)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{self.folder}: the state cannot be left there: {error}") from None

    def _leave(
        self, config: RunConfig, stage: Stage, applied: int, norm: float, temporary: Path
    ) -> None:
        version, state = stage.version, stage.live_state()
        data = write_snapshot(self.stage, version, state, partial(writable, temporary))
        left = Left(
            run=self.run,
            born=self.born,
            config=_digest_of_config(config),
            stage=self.stage,
            version=version,
            applied=applied,
            norm=norm,
            parameters_digest=stage.digest(),
            sha256=digest_of(data),
        )
        file = self.folder / left.file
        _sync(temporary)
        temporary.rename(file)
        temporary.write_text(left.model_dump_json(indent=1), encoding="utf-8")
        _sync(temporary)
        temporary.rename(self._about)
        for other in self.folder.glob(f"stage-{self.stage}-*.safetensors"):
            if other != file:
                other.unlink()

    @property
    def _about(self) -> Path:
        return self.folder / f"stage-{self.stage}.json"


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _digest_of_config(config: RunConfig) -> str:
    """Return a digest of what decides a stage's weights."""
    sections = {"model", "optimizer", "batch", "stages", "precision"}
    text = json.dumps(config.model_dump(mode="json", include=sections), sort_keys=True)
    return hashlib.sha256(f"{config.run.seed} {text}".encode()).hexdigest()
