"""The epoch of a run, and when it was begun: written down before anyone is told of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from swarmrt.errors import CheckpointError, RunError
from swarmrt.runtime.checkpoints.synced import write_synced

EPOCH_DIGITS = 8  # so that all are equally long


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
            write_synced(path, str(int(time.time())).encode())
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
        write_synced(temporary, text)
        temporary.replace(path)
    except OSError as error:
        raise RunError(
            f"{path}: the epoch cannot be written down: {error.strerror}; make room, and go on "
            "with --resume: the peers keep what they hold"
        ) from None
