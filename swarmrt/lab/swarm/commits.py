"""Following a run's `metrics.jsonl`: the steps that are committed, and by whom."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from swarmrt.ids import PeerId
from swarmrt.log_files import Follower


class Commits:
    """The commits that the metrics tell so far. `read` takes in what has been written since."""

    def __init__(self, path: Path) -> None:
        self._metrics = Follower(path)
        self._rest = b""
        self._members: tuple[tuple[PeerId, ...], ...] = ()
        self.number = 0  # of commits, those of all the trainer's incarnations together
        self.version = 0  # after the newest
        self.before_last_at = -math.inf  # wall-clock time of the commit before the newest
        self._last_at = -math.inf

    def members(self, stage: int) -> tuple[PeerId, ...]:
        """Return who took part in the newest commit."""
        return self._members[stage] if self._members else ()

    def read(self) -> None:
        *lines, self._rest = (self._rest + self._metrics.read()).split(b"\n")
        for line in lines:
            if (parsed := _parsed(line)) is not None:
                self._add(parsed)

    def _add(self, line: dict[str, Any]) -> None:
        if "version" in line and "digests" in line:
            self.version = line["version"]
            self.number += 1
            self._members = tuple(tuple(map(PeerId, stage)) for stage in line["digests"])
            self.before_last_at, self._last_at = self._last_at, line["time"]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return what a line says; None for one that a killed trainer has torn."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None
