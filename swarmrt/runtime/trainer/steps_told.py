"""The last steps that a run's trainer has told of, for its next incarnation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swarmrt.ids import PeerId
from swarmrt.log_files import last_entries
from swarmrt.scheduler.settings import StepTold
from swarmrt.scheduler.trainer.closing.comparing import TOLD

METRICS = "metrics.jsonl"
MOST_BYTES = 1 << 20  # that are read of it


def steps_told(run_dir: Path) -> tuple[StepTold, ...]:
    """Return them, the oldest first; none where nothing of the kind is written. Raises OSError."""
    steps = map(_step, last_entries(run_dir / METRICS, MOST_BYTES))
    return tuple(step for step in steps if step is not None)[-TOLD:]


def _step(entry: Mapping[str, Any]) -> StepTold | None:
    match entry:
        case {"seconds": float(seconds), "digests": list(stages)}:
            members = (PeerId(peer) for stage in stages for peer in stage)
            return StepTold(seconds, tuple(members))
    return None
