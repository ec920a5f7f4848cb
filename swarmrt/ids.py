"""The names of things: peers, seats, runs, microbatches, attempts."""

from __future__ import annotations

from typing import NamedTuple, NewType

PeerId = NewType("PeerId", str)
"""A process of the swarm: the base58 text of its libp2p identity."""

SeatId = PeerId
"""A seat of a process, which serves one stage: PEER/STAGE, of its peer's id and its stage.

A stage has one variant so far. Another one would be PEER/STAGE.VARIANT. Where somebody is addressed
who may be a seat or a process, such as the trainer, which has none, a PeerId stands for both.
"""

NO_SEAT = -1
"""The place of a stage where a process is meant, and none of its seats."""


NO_ISLAND = -1
"""The island of who has none yet, or asks for none."""


class Seats(NamedTuple):
    """The seats at the two ends of a message: their stages, or NO_SEAT for the process itself."""

    of: int = NO_SEAT
    to: int = NO_SEAT


BETWEEN_PROCESSES = Seats()


def seat_of(peer: PeerId, stage: int) -> SeatId:
    """Return the seat of a process at a stage."""
    return SeatId(f"{peer}/{stage}")


def name_of(peer: PeerId, stage: int) -> PeerId:
    """Return the seat of a process at a stage, or the process itself for NO_SEAT."""
    return peer if stage == NO_SEAT else seat_of(peer, stage)


def peer_of(name: PeerId) -> PeerId:
    """Return the process of a seat; a process is its own."""
    return PeerId(name.partition("/")[0])


def stage_of(name: PeerId) -> int:
    """Return the stage of a seat, or NO_SEAT for a process. Raises ValueError for no name of
    either."""
    stage = name.partition("/")[2]
    if not stage:
        return NO_SEAT
    if not (stage.isdecimal() and stage.isascii()):
        raise ValueError(f"{name!r:.80} is no seat")
    return int(stage)


class RunId(NamedTuple):
    """A run: its name, and the fingerprint of the key that owns it."""

    name: str
    owner: str  # 26 characters of base32

    def __str__(self) -> str:
        return f"{self.name}@{self.owner}"


class MicrobatchId(NamedTuple):
    """The unit of work of a step. A held-out one evaluates the version that `step` says.

    `step` goes over the wire. What it means is asked for by name: which data it is (`position`),
    which weights it runs on (`runs_on`), and which commit it belongs to (`commits_in`).
    """

    step: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    held_out: bool = False  # from the held-out split: forward only, no claim, no gradient

    def position(self, microbatches: int) -> int:
        """Return which one it is of all that a run trains on, with so many in a step."""
        return self.step * microbatches + self.index

    @property
    def commits_in(self) -> int:
        """Return the step that takes its gradient, or is held up until it is evaluated."""
        return self.step

    def runs_on(self, staleness: int) -> int:
        """Return the version whose weights it needs; -1 stands for those of version 0 as well."""
        return self.step if self.held_out else self.step - staleness

    def __str__(self) -> str:
        return f"{'e' if self.held_out else ''}{self.step}.{self.index}"


class Work(NamedTuple):
    """A try of a microbatch. Every try is computed apart from the others."""

    microbatch: MicrobatchId
    attempt: int

    def __str__(self) -> str:
        return f"{self.microbatch}/{self.attempt}"
