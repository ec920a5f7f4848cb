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


def steps_told(run_dir: Path, microbatches: int) -> tuple[StepTold, ...]:
    """Return them, the oldest first, with the time that so many microbatches take; none where
    nothing of the kind is written. Raises OSError."""
    entries = last_entries(run_dir / METRICS, MOST_BYTES)
    steps = (_step(entry, microbatches) for entry in entries)
    return tuple(step for step in steps if step is not None)[-TOLD:]


def _step(entry: Mapping[str, Any], microbatches: int) -> StepTold | None:
    match entry:
        case {"seconds": float(seconds), "digests": list(stages)}:
            members = (PeerId(peer) for stage in stages for peer in stage)
            size = entry.get("microbatches", microbatches)
            is_size = isinstance(size, int) and size > 0
            return StepTold(seconds * microbatches / (size if is_size else 1), tuple(members))
    return None
