"""The names of things: peers, microbatches, attempts."""

from __future__ import annotations

from typing import NamedTuple, NewType

PeerId = NewType("PeerId", str)
"""A process of the swarm: the base58 text of its libp2p identity."""


class MicrobatchId(NamedTuple):
    """The unit of work. `step` is also the stage version that it must run on."""

    step: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    held_out: bool = False  # from the held-out split: forward only, no claim, no gradient

    def __str__(self) -> str:
        return f"{'e' if self.held_out else ''}{self.step}.{self.index}"


class Work(NamedTuple):
    """One try of a microbatch. Every try is computed apart from the others."""

    microbatch: MicrobatchId
    attempt: int

    def __str__(self) -> str:
        return f"{self.microbatch}/{self.attempt}"
