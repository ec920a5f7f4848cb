"""The events that the cores are told of. Outcomes of I/O are events, never exceptions."""

from __future__ import annotations

from typing import get_args

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import FailedIn, Message
from swarmrt.recorded import Recorded
from swarmrt.scheduler.local_work import NO_LOCAL_WORK, LocalWork


class EventBase(Recorded, frozen=True):
    """Base of all events."""


class Started(EventBase, frozen=True):
    """The process is up. A peer holds this version of its stage, with this digest."""

    version: int = 0
    digest: str = ""
    applied: int = -1  # round of the update that made it, if that is known
    norm: float = 0.0  # of that update


class Received(EventBase, frozen=True):
    """A message arrived over an authenticated link. Its payload is kept by the world."""

    sender: PeerId
    message: Message


class SendFailed(EventBase, frozen=True):
    """A message certainly did not go out."""

    to: PeerId
    message: Message


class PeerLost(EventBase, frozen=True):
    """The link to a process broke. What was sent to its seats and not answered may or may not have
    arrived."""

    peer: PeerId
    reason: str


class PeersSeen(EventBase, frozen=True):
    """The directory's view of a stage: the seats that announce to serve it."""

    stage: int
    peers: tuple[PeerId, ...]


class ForwardDone(EventBase, frozen=True):
    microbatch: MicrobatchId
    seconds: float
    loss_sum: float  # last stage only, else 0
    tokens: int
    frame_bytes: int  # of the output and what rides along


class BackwardDone(EventBase, frozen=True):
    """The gradient is in the accumulator if that was asked; the input gradient is kept."""

    microbatch: MicrobatchId
    seconds: float
    frame_bytes: int  # of the input gradient


class WeightGradientsDone(EventBase, frozen=True):
    """The end of what backward had left: it is in the accumulator too."""

    microbatch: MicrobatchId
    seconds: float


class ComputeFailed(EventBase, frozen=True):
    """A forward, a backward, or what backward had left, raised an error. What it was to add to the
    accumulator may be in it in part."""

    microbatch: MicrobatchId
    computation: FailedIn
    reason: str
    not_finite: bool = False  # nothing was raised: what came of it is not finite


class Contributed(EventBase, frozen=True):
    """A replica's contribution to a round is fixed."""

    step: int
    round: int


class PartUnfit(EventBase, frozen=True):
    """A part of this round cannot be used: its length, its encoding or its values are wrong."""

    step: int
    round: int
    sender: PeerId
    reason: str


class PartSummed(EventBase, frozen=True):
    step: int
    round: int
    index: int
    not_finite: PeerId = PeerId("")  # the first contributor whose slice was not, if any


class GradientCombined(EventBase, frozen=True):
    """The stage's whole mean gradient is here."""

    step: int
    round: int
    digest: str
    squared_norm: float


class PartUpdated(EventBase, frozen=True):
    """A part of the next version's state is made here, for everyone."""

    step: int
    round: int
    index: int


class UpdateJoined(EventBase, frozen=True):
    """The whole state after the update is here, aside."""

    step: int
    round: int
    digest: str


class Stepped(EventBase, frozen=True):
    """The optimizer has made this version."""

    version: int
    digest: str
    local: LocalWork = NO_LOCAL_WORK


class StateLoaded(EventBase, frozen=True):
    version: int
    digest: str


class StateUnavailable(EventBase, frozen=True):
    version: int
    reason: str


class Moved(EventBase, frozen=True):
    """Bytes of states and of parts that have come and gone since the start of this process. Told
    about twice a second while any come or go."""

    came_bytes: int
    went_bytes: int
    left_bytes: int  # that wait to go
    links: tuple[tuple[PeerId, int, int], ...] = ()  # over which some go: to whom, gone, left


class CheckpointSaved(EventBase, frozen=True):
    version: int


class CheckpointFailed(EventBase, frozen=True):
    version: int
    reason: str


class Expelled(EventBase, frozen=True):
    """The run's owner has taken this process's membership."""

    peer: PeerId
    reason: str


class DeadlinePassed(EventBase, frozen=True):
    """A deadline that StartDeadline asked for. The newest of a name counts."""

    name: str


class SeatOpened(EventBase, frozen=True):
    """A seat at this stage is held by this process from now on."""

    stage: int


class SeatNotOpened(EventBase, frozen=True):
    """A seat at this stage cannot be held by this process as things are."""

    stage: int
    reason: str


class SeatClosed(EventBase, frozen=True):
    """The seat of this process at this stage has come to its end, and nothing of it is left."""

    stage: int


class MoveRequested(EventBase, frozen=True):
    """A wish of whoever has started the trainer: that a process serves this stage, and stays there
    for so many seconds."""

    peer: PeerId
    stage: int
    seconds: float


class StopRequested(EventBase, frozen=True):
    """The user or the system asks this process to leave."""

    reason: str


class PauseRequested(EventBase, frozen=True):
    """The owner of the machine wants its device back: at once, or once the next version is made."""

    gently: bool = False


class ResumeRequested(EventBase, frozen=True):
    """The owner of the machine lends its device again; the state is on it."""


Event = (
    Started | Received | SendFailed | PeerLost | PeersSeen | ForwardDone | BackwardDone
    | WeightGradientsDone | PartSummed | GradientCombined | Stepped | StateLoaded
    | StateUnavailable | CheckpointSaved | CheckpointFailed | DeadlinePassed | StopRequested
    | ComputeFailed | PartUnfit | Expelled | Moved | PartUpdated | UpdateJoined | Contributed
    | SeatOpened | SeatNotOpened | SeatClosed | MoveRequested
    | PauseRequested | ResumeRequested
)  # fmt: skip
ALL_EVENTS: tuple[type[Event], ...] = get_args(Event)
