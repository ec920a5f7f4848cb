"""A run's folder: where it is, and the configuration in it."""

from __future__ import annotations

import time
from pathlib import Path

from swarmrt.config import RunConfig, dump_toml
from swarmrt.errors import UsageError


def new_run_dir(config: RunConfig) -> Path:
    """A name that is not taken yet: runs/NAME-TIME."""
    base = Path("runs") / f"{config.run.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = base, 2
    while path.exists():
        path, number = base.with_name(f"{base.name}-{number}"), number + 1
    return path


def write_config(run_dir: Path, config: RunConfig) -> None:
    """Write RUN_DIR/config.toml. Raises UsageError when the folder cannot be written."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "config.toml").write_text(dump_toml(config), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{run_dir}: cannot be written: {error.strerror}") from None
