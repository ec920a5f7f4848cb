"""A run's folder: where it is, whose it is, and the configuration in it.

A folder belongs to one run and, while it is at work, to one trainer. What the run is stands in
`trainer/run.json` from before the first peer is told of it, so that nothing that was published is
ever decided a second time.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from swarmrt.config import RunConfig
from swarmrt.config_toml import dump_toml, parse_config
from swarmrt.errors import CheckpointError, UsageError
from swarmrt.run_identity import differences


def new_run_dir(config: RunConfig) -> Path:
    """Make a folder for nobody else: runs/NAME-TIME. Raises UsageError when that cannot be."""
    base = Path("runs") / f"{config.run.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = base, 2
    while True:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            path, number = base.with_name(f"{base.name}-{number}"), number + 1
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
        else:
            return path


def write_config(run_dir: Path, config: RunConfig) -> None:
    """Write RUN_DIR/config.toml. Raises UsageError when the folder cannot be written."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "config.toml").write_text(dump_toml(config), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{run_dir}: cannot be written: {error.strerror}") from None


@contextmanager
def claimed(run_dir: Path) -> Iterator[None]:
    """Be the only trainer in this folder inside. Raises UsageError when another one is."""
    path = run_dir / "trainer" / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"{run_dir}: cannot be written: {error.strerror}") from None
    try:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which no child of ours inherits
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise UsageError(f"{path}: cannot be locked: {error.strerror}") from None
            raise UsageError(
                f"{run_dir}: another trainer is at work in this run folder; name another one with "
                "--run-dir, or stop that one first"
            ) from None
        yield
    finally:
        os.close(lock)


def refuse_used(run_dir: Path) -> None:
    """Check that no run has begun in this folder. Raises UsageError."""
    if _record(run_dir).exists() or (run_dir / "checkpoints").exists():
        raise UsageError(
            f"{run_dir}: holds a run already; go on with it with --resume {run_dir}, or name "
            "another folder with --run-dir"
        )


def read_run(run_dir: Path) -> RunConfig | None:
    """Return the configuration of the run in this folder; None if nothing is written down yet.

    Raises CheckpointError when it cannot be read.
    """
    path = _record(run_dir)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: does not say what the run is: {error}") from None
    return parse_config(found, str(path))


def write_run(run_dir: Path, config: RunConfig) -> None:
    """Write down what the run is. Raises UsageError when the folder cannot be written."""
    path = _record(run_dir)
    temporary = path.with_name(".run.json.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(config.model_dump(mode="json"), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"{run_dir}: cannot be written: {error.strerror}") from None


def refuse_changes(
    known: RunConfig, config: RunConfig, allowed: Collection[str], run_dir: Path
) -> None:
    """Check that the run is what it was, but for what may change. Raises UsageError."""
    found = differences(known, config)
    unknown = sorted(set(allowed) - set(found))
    if unknown:
        raise UsageError(f"--allow-change {unknown[0]}: nothing of that name has changed")
    refused = {name: words for name, words in found.items() if name not in allowed}
    if refused:
        more = " ".join(f"--allow-change {name}" for name in refused)
        raise UsageError(
            f"{run_dir}: this is not the run that was begun there: {'; '.join(refused.values())}; "
            f"set it as it was, or say {more}"
        )


def _record(run_dir: Path) -> Path:
    return run_dir / "trainer" / "run.json"
