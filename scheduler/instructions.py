"""What the cores tell their world to do. Payloads are named here, and kept by the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import Message


@dataclass(frozen=True, slots=True)
class Instruction:
    """Base of all instructions."""


@dataclass(frozen=True, slots=True)
class Payload:
    """Base of the names of tensors that travel with a message."""


@dataclass(frozen=True, slots=True)
class Batch(Payload):
    """Token ids and targets of a microbatch, from the trainer's data."""

    microbatch: MicrobatchId


@dataclass(frozen=True, slots=True)
class Output(Payload):
    """A stage's output and the targets that ride along."""

    work: Work


@dataclass(frozen=True, slots=True)
class InputGrad(Payload):
    """The gradient of a stage's input. At the last stage of a one-stage run there is none."""

    work: Work


@dataclass(frozen=True, slots=True)
class GradientPart(Payload):
    """Slice `index` of `parts` of this stage's accumulated gradients, or of the summed ones."""

    index: int
    parts: int
    summed: bool


@dataclass(frozen=True, slots=True)
class Send(Instruction):
    to: PeerId
    message: Message
    payload: Payload | None = None


@dataclass(frozen=True, slots=True)
class RunForward(Instruction):
    """Compute; the outcome is ForwardDone. The input came with the work's Forward."""

    work: Work


@dataclass(frozen=True, slots=True)
class RunBackward(Instruction):
    """Compute and accumulate; the outcome is BackwardDone."""

    work: Work


@dataclass(frozen=True, slots=True)
class Forget(Instruction):
    """Drop whatever is kept of a work: inputs, graph, output, gradients of activations."""

    work: Work


@dataclass(frozen=True, slots=True)
class ClearGradients(Instruction):
    """What this peer accumulated is void: an earlier epoch's, or fenced."""


@dataclass(frozen=True, slots=True)
class SumPart(Instruction):
    """Add the contributors' slices in roster order, divide by tokens; the outcome is PartSummed.

    The slice of this peer itself comes from its own accumulator.
    """

    step: int
    round: int
    index: int
    parts: int
    contributors: tuple[PeerId, ...]  # members that accumulated anything, in roster order
    tokens: int


@dataclass(frozen=True, slots=True)
class CombineParts(Instruction):
    """All summed parts are here: join them; the outcome is GradientCombined."""

    step: int
    round: int
    parts: int


@dataclass(frozen=True, slots=True)
class DropRound(Instruction):
    """Forget the parts of a round that is void. The accumulators stay as they are."""

    step: int
    round: int


@dataclass(frozen=True, slots=True)
class StepOptimizer(Instruction):
    """Clip by the global norm, update, clear the accumulators; the outcome is Stepped."""

    step: int
    norm: float
    snapshot: bool


@dataclass(frozen=True, slots=True)
class LoadState(Instruction):
    """Get and load a version; the outcome is StateLoaded or StateUnavailable.

    No donors: version 0, built from the run's seed.
    """

    version: int
    donors: tuple[PeerId, ...]


PeerStatus = Literal["joining", "serving", "leaving"]


@dataclass(frozen=True, slots=True)
class Announce(Instruction):
    """Write this peer's state to the directory."""

    status: PeerStatus
    version: int


@dataclass(frozen=True, slots=True)
class StartDeadline(Instruction):
    """Answer with DeadlinePassed(name) at this time. It replaces the earlier one of that name."""

    name: str
    at: float


@dataclass(frozen=True, slots=True)
class SaveCheckpoint(Instruction):
    """Collect one snapshot a stage; the outcome is CheckpointSaved or CheckpointFailed."""

    version: int
    epoch: int
    donors: tuple[tuple[PeerId, ...], ...]  # by stage
    digests: tuple[str, ...]  # of the parameters, by stage


@dataclass(frozen=True, slots=True)
class RaiseEpoch(Instruction):
    """Write the epoch down, for the next incarnation to be higher, before going on."""

    epoch: int


@dataclass(frozen=True, slots=True)
class ReportVoid(Instruction):
    """For people: the work of a step is void, and is done again."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReportCheckpointFailed(Instruction):
    """For people: the run goes on without this checkpoint."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReportWaiting(Instruction):
    """For people: replicas that are ready and needed, by stage."""

    ready: tuple[int, ...]
    needed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReportStep(Instruction):
    """For people and metrics: a step was committed."""

    version: int
    loss: float  # nats a token, before the update
    tokens: int
    norm: float
    seconds: float
    digests: tuple[tuple[tuple[PeerId, str], ...], ...]  # of the new parameters, by stage
    digests_equal: bool


@dataclass(frozen=True, slots=True)
class ReportEvaluation(Instruction):
    version: int
    loss: float  # nats a token of the held-out split


@dataclass(frozen=True, slots=True)
class ReportPeer(Instruction):
    """For people: what a peer says of itself."""

    peer: PeerId
    stage: int
    state: str
    version: int
    queued: int
    done: int
    service_s: float


@dataclass(frozen=True, slots=True)
class Stop(Instruction):
    """Leave. An error is shown to the user and makes the exit code non-zero."""

    reason: str
    error: bool


ALL_INSTRUCTIONS: tuple[type[Instruction], ...] = (
    Send, RunForward, RunBackward, Forget, ClearGradients, SumPart, CombineParts, DropRound,
    StepOptimizer, LoadState, Announce, StartDeadline, SaveCheckpoint, ReportWaiting, ReportStep,
    ReportEvaluation, ReportPeer, ReportVoid,
    ReportCheckpointFailed, RaiseEpoch, Stop,
)  # fmt: skip
