"""The findings of a check: written down as they come, so that a check that is ended keeps them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Findings:
    """The findings of one check. A figure is anything that JSON can say."""

    says: str = ""  # the outcome in a few words
    failures: list[str] = field(default_factory=list)  # sentences
    figures: dict[str, Any] = field(default_factory=dict)


def read(path: Path) -> Findings:
    """Return what was written there last; empty when nothing was."""
    if not path.exists():
        return Findings()
    return Findings(**json.loads(path.read_text(encoding="utf-8")))


@dataclass
class Notebook:
    """The findings of a running check, in a file that is always whole."""

    path: Path
    _findings: Findings = field(default_factory=Findings)

    @property
    def failures(self) -> list[str]:
        return self._findings.failures

    def say(self, text: str) -> None:
        """The outcome, in a few words, as far as it is known."""
        self._findings.says = text
        self._write()

    def figure(self, name: str, value: object) -> None:
        """Write a figure down; one of the same name is replaced."""
        self._findings.figures[name] = value
        self._write()

    def expect(self, holds: bool, sentence: str) -> bool:
        """Write the sentence down as a failure unless it holds. Returns whether it does."""
        if not holds:
            self._findings.failures.append(sentence)
            self._write()
        return holds

    def _write(self) -> None:
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self._findings)), encoding="utf-8")
        os.replace(draft, self.path)
