"""The job that a check is given."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from swarmrt.check_gpu.findings import Notebook


@dataclass(frozen=True)
class Job:
    """Compute on `device`, write findings into `book`, leave files in `folder` alone."""

    device: str
    folder: Path
    book: Notebook
    ends_at: float  # in the clock of time.monotonic

    @property
    def is_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def left_s(self) -> float:
        """Return the seconds until the check is ended."""
        return self.ends_at - time.monotonic()
