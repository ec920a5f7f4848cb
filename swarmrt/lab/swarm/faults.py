"""The record of what was done to a run, which the audit counts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FaultRecord:
    """The faults that were made in a run from outside, by their kind: RUN_DIR/faults.jsonl."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / "faults.jsonl"
        self._is_in_one = False

    def note(self, kind: str) -> None:
        """Write a fault down."""
        if self._is_in_one:
            return
        line = json.dumps({"time": time.time(), "kind": kind})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    @contextmanager
    def one(self, kind: str) -> Iterator[None]:
        """Write down what is done inside as one fault of this kind, if it succeeds."""
        self._is_in_one = True
        try:
            yield
        finally:
            self._is_in_one = False
        self.note(kind)
