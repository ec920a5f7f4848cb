"""The findings of `swarmrt doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    what: str
    works: bool
    says: str  # what was found, or why it does not work
