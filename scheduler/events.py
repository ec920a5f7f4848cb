"""What happened, as the cores are told of it. Outcomes of I/O are events, never exceptions."""

from __future__ import annotations

from dataclasses import dataclass

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Message


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The process is up. A peer holds this version of its stage, with this digest."""

    version: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Received(Event):
    """A message arrived over an authenticated link. Its payload is kept by the world."""

    sender: PeerId
    message: Message


@dataclass(frozen=True, slots=True)
class SendFailed(Event):
    """A message certainly did not go out."""

    to: PeerId
    message: Message


@dataclass(frozen=True, slots=True)
class PeerLost(Event):
    """The link to a peer broke. What was sent and not answered may or may not have arrived."""

    peer: PeerId
    reason: str


@dataclass(frozen=True, slots=True)
class PeersSeen(Event):
    """The directory's view of a stage: who announces to serve it."""

    stage: int
    peers: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class ForwardDone(Event):
    microbatch: MicrobatchId
    seconds: float
    loss_sum: float  # last stage only, else 0
    tokens: int
    frame_bytes: int  # of the output and what rides along


@dataclass(frozen=True, slots=True)
class BackwardDone(Event):
    """The gradient is in the accumulator if that was asked; the input gradient is kept."""

    microbatch: MicrobatchId
    seconds: float
    frame_bytes: int  # of the input gradient


@dataclass(frozen=True, slots=True)
class WeightGradientsDone(Event):
    """What backward had left is in the accumulator too."""

    microbatch: MicrobatchId
    seconds: float


@dataclass(frozen=True, slots=True)
class PartSummed(Event):
    step: int
    round: int
    index: int


@dataclass(frozen=True, slots=True)
class GradientCombined(Event):
    """The stage's whole mean gradient is here."""

    step: int
    round: int
    digest: str
    squared_norm: float


@dataclass(frozen=True, slots=True)
class Stepped(Event):
    """The optimizer has made this version."""

    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class StateLoaded(Event):
    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class StateUnavailable(Event):
    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class CheckpointSaved(Event):
    version: int


@dataclass(frozen=True, slots=True)
class CheckpointFailed(Event):
    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed(Event):
    """A deadline that StartDeadline asked for. The newest of a name counts."""

    name: str


@dataclass(frozen=True, slots=True)
class StopRequested(Event):
    """The user or the system asks this process to leave."""

    reason: str


ALL_EVENTS: tuple[type[Event], ...] = (
    Started, Received, SendFailed, PeerLost, PeersSeen, ForwardDone, BackwardDone,
    WeightGradientsDone, PartSummed, GradientCombined, Stepped, StateLoaded, StateUnavailable,
    CheckpointSaved, CheckpointFailed, DeadlinePassed, StopRequested,
)  # fmt: skip
