"""The names of things: peers, runs, microbatches, attempts."""

from __future__ import annotations

from typing import NamedTuple, NewType

PeerId = NewType("PeerId", str)
"""A process of the swarm: the base58 text of its libp2p identity."""


class RunId(NamedTuple):
    """A run: its name, and the fingerprint of the key that owns it."""

    name: str
    owner: str  # 26 characters of base32

    def __str__(self) -> str:
        return f"{self.name}@{self.owner}"


class MicrobatchId(NamedTuple):
    """The unit of work of a step. A held-out one evaluates the version that `step` says."""

    step: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    held_out: bool = False  # from the held-out split: forward only, no claim, no gradient

    def runs_on(self, staleness: int) -> int:
        """The version whose weights it needs; -1 stands for those of version 0 as well."""
        return self.step if self.held_out else self.step - staleness

    def __str__(self) -> str:
        return f"{'e' if self.held_out else ''}{self.step}.{self.index}"


class Work(NamedTuple):
    """A try of a microbatch. Every try is computed apart from the others."""

    microbatch: MicrobatchId
    attempt: int

    def __str__(self) -> str:
        return f"{self.microbatch}/{self.attempt}"
