"""The messages on the wire: who says what to whom. `docs/wire.md` is the full contract.

trainer → peer   Admit · Forward (stage 0) · Granted · Stale · Prepare · Apply · Finish
peer → trainer   Ready · Claim · Evaluated · Accumulated · Prepared · Refused · Applied ·
                 Beacon · Leaving
peer → peer      Forward · Accepted · Busy · Backward · Part
anyone → donor   GetState, answered by StateChunk or NoState

Messages are plain values. Tensors travel beside them; the comment `payload:` says which.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarmrt.ids import PeerId, Work

Roster = tuple[tuple[PeerId, tuple[int, ...]], ...]
"""For each replica of a stage, in reduce order, the indices of the microbatches it accumulated."""


@dataclass(frozen=True, slots=True)
class Message:
    """Base of all messages."""


@dataclass(frozen=True, slots=True)
class Admit(Message):
    """Serve, at this version. What was done in an earlier epoch is void.

    Without donors the peer has the version already, or builds version 0 from the seed.
    """

    epoch: int
    version: int
    digest: str  # of the version's parameters, where it is known
    donors: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Ready(Message):
    """This peer has the version it was admitted at, and takes work."""

    epoch: int
    version: int
    digest: str  # of its parameters


@dataclass(frozen=True, slots=True)
class Forward(Message):
    """Compute this stage. payload: inputs (token ids [B, T] or activations), targets [B, T]."""

    work: Work
    epoch: int
    route: tuple[PeerId, ...]  # peers passed so far, by stage


@dataclass(frozen=True, slots=True)
class Accepted(Message):
    """The answer to a Forward that was taken: its frame need not be sent elsewhere."""

    work: Work
    service_s: float  # smoothed seconds of one forward and backward at this peer; 0 unknown
    backlog_s: float  # estimated seconds of work queued before this one


@dataclass(frozen=True, slots=True)
class Busy(Message):
    """The answer to a Forward that was not taken."""

    work: Work
    service_s: float
    backlog_s: float


@dataclass(frozen=True, slots=True)
class Claim(Message):
    """The last stage has the loss, and asks whether this route may run backward."""

    work: Work
    epoch: int
    route: tuple[PeerId, ...]
    loss_sum: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Granted(Message):
    """This route, and no other, owns the microbatch."""

    work: Work


@dataclass(frozen=True, slots=True)
class Stale(Message):
    """Another route owns the microbatch; drop this attempt."""

    work: Work


@dataclass(frozen=True, slots=True)
class Evaluated(Message):
    """The last stage's loss of a held-out microbatch."""

    work: Work
    loss_sum: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Backward(Message):
    """Run backward. payload: the gradient of this stage's output."""

    work: Work
    epoch: int
    route: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Accumulated(Message):
    """A receipt: this stage's gradient of the microbatch is in the sender's accumulator."""

    work: Work
    stage: int


@dataclass(frozen=True, slots=True)
class Prepare(Message):
    """Combine the stage's gradients over this roster, and keep the result aside."""

    epoch: int
    step: int
    round: int
    roster: Roster
    tokens: int  # of the whole step: what the sum is divided by


@dataclass(frozen=True, slots=True)
class Part(Message):
    """One part of the reduce. payload: a flat slice.

    Not summed: the sender's gradients, for the part's owner. Summed: the owner's result.
    """

    step: int
    round: int
    index: int  # of the part; its owner is the roster's member at index modulo their number
    summed: bool


@dataclass(frozen=True, slots=True)
class Prepared(Message):
    """The sender holds the stage's whole mean gradient."""

    step: int
    round: int
    digest: str
    squared_norm: float


@dataclass(frozen=True, slots=True)
class Refused(Message):
    """The sender's record differs from its entry in the roster."""

    step: int
    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class Apply(Message):
    """All stages are prepared: clip by the global norm and step the optimizer."""

    epoch: int
    step: int
    round: int
    norm: float
    snapshot: bool  # keep a copy of the new state for GetState


@dataclass(frozen=True, slots=True)
class Applied(Message):
    """The update is done."""

    version: int
    digest: str  # of the parameters


@dataclass(frozen=True, slots=True)
class GetState(Message):
    """Send this range of the snapshot. A peer's own stage, or the one asked of a checkpoint."""

    stage: int
    version: int
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class StateChunk(Message):
    """payload: bytes of the snapshot, a safetensors file that is equal on all replicas."""

    stage: int
    version: int
    offset_bytes: int
    total_bytes: int
    digest: str  # of the whole file


@dataclass(frozen=True, slots=True)
class NoState(Message):
    """The sender does not hold that snapshot."""

    stage: int
    version: int
    offset_bytes: int


@dataclass(frozen=True, slots=True)
class Beacon(Message):
    """A peer's load and progress."""

    stage: int
    version: int
    queued: int
    done: int  # forwards and backwards computed since the start
    service_s: float


@dataclass(frozen=True, slots=True)
class Leaving(Message):
    """The sender takes no work any more, and holds nothing of this step."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Finish(Message):
    """The run is over, or the sender of Leaving may go."""

    reason: str


ALL_MESSAGES: tuple[type[Message], ...] = (
    Admit, Ready, Forward, Accepted, Busy, Claim, Granted, Stale, Evaluated, Backward,
    Accumulated, Prepare, Part, Prepared, Refused, Apply, Applied, GetState, StateChunk,
    NoState, Beacon, Finish, Leaving,
)  # fmt: skip
"""In the order of their numbers on the wire, which start at 1."""
