"""The note in a run's folder of the stages whose replicas are unlike."""

from __future__ import annotations

import json
from pathlib import Path

from swarmrt.errors import CheckpointError

NAME = Path("trainer") / "unlike-stages.json"


def read_unlike(run_dir: Path) -> tuple[int, ...]:
    """Return the stages; none where nothing was written. Raises CheckpointError when the file is
    not readable."""
    path = run_dir / NAME
    try:
        stages = json.loads(path.read_text())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if not isinstance(stages, list) or not all(type(stage) is int for stage in stages):
        raise CheckpointError(f"{path}: is no list of stages; remove it, it is found out again")
    return tuple(stages)


def write_unlike(run_dir: Path, stages: tuple[int, ...]) -> None:
    """Write the stages down. What was there is there until all of it is."""
    path = run_dir / NAME
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(stages))
    temporary.replace(path)
