"""What the cores tell their world to do. Payloads are named here, and kept by the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Message


@dataclass(frozen=True, slots=True)
class Instruction:
    """Base of all instructions."""


@dataclass(frozen=True, slots=True)
class Report(Instruction):
    """Base of all that is only told: to people, views and metrics."""


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

    microbatch: MicrobatchId


@dataclass(frozen=True, slots=True)
class InputGrad(Payload):
    """The gradient of a stage's input. At the last stage of a one-stage run there is none."""

    microbatch: MicrobatchId


@dataclass(frozen=True, slots=True)
class GradientPart(Payload):
    """Slice `index` of `parts` of this stage's accumulated gradients, or of the summed ones."""

    step: int
    round: int
    index: int
    parts: int
    summed: bool


@dataclass(frozen=True, slots=True)
class Send(Instruction):
    to: PeerId
    message: Message
    payload: Payload | None = None


@dataclass(frozen=True, slots=True)
class KeepInput(Instruction):
    """Keep the payload of the message that has just come: a microbatch's input and targets.

    A payload is dropped unless an instruction says to keep it.
    """

    microbatch: MicrobatchId


@dataclass(frozen=True, slots=True)
class KeepGradient(Instruction):
    """Keep the payload that has just come: the gradient of this stage's output."""

    microbatch: MicrobatchId


@dataclass(frozen=True, slots=True)
class KeepPart(Instruction):
    """Keep the payload that has just come: a part of a round."""

    sender: PeerId
    step: int
    round: int
    index: int
    summed: bool
    parts: int = 0  # of the round; 0 while it is not known yet


@dataclass(frozen=True, slots=True)
class RunForward(Instruction):
    """Compute; the outcome is ForwardDone."""

    microbatch: MicrobatchId


@dataclass(frozen=True, slots=True)
class RunBackward(Instruction):
    """Compute, and add to the accumulator or not; the outcome is BackwardDone.

    `later`: the weights' gradients may be left for RunWeightGradients.
    """

    microbatch: MicrobatchId
    accumulate: bool
    later: bool = False


@dataclass(frozen=True, slots=True)
class RunWeightGradients(Instruction):
    """Add what backward has left to the accumulator; the outcome is WeightGradientsDone."""

    microbatch: MicrobatchId


@dataclass(frozen=True, slots=True)
class Forget(Instruction):
    """Drop whatever is kept of a microbatch: input, graph, output, gradients of activations."""

    microbatch: MicrobatchId


@dataclass(frozen=True, slots=True)
class DropFrames(Instruction):
    """Drop the frames that are retained of a microbatch: output and input gradient."""

    microbatch: MicrobatchId


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
    """Forget the parts and the sum of a round that is void. The accumulators stay as they are."""

    step: int
    round: int


@dataclass(frozen=True, slots=True)
class StepOptimizer(Instruction):
    """Clip by the global norm, update with the round's sum, clear the accumulators; the outcome is
    Stepped."""

    step: int
    round: int
    norm: float
    snapshot: bool


@dataclass(frozen=True, slots=True)
class LoadState(Instruction):
    """Get and load a version; the outcome is StateLoaded or StateUnavailable.

    No donors: version 0, built from the run's seed. It replaces one that is under way.
    """

    version: int
    donors: tuple[PeerId, ...]


PeerStatus = Literal["joining", "serving", "leaving"]  # in the directory


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
class OfferCheckpoint(Instruction):
    """Be the donor of the checkpoint of this version, for every stage."""

    version: int


@dataclass(frozen=True, slots=True)
class ReportRollback(Report):
    """For people: the live state is lost, and the run goes back to this version."""

    version: int
    lost_steps: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReportPause(Report):
    """For people: the run cannot go on until a replica of the stage appears."""

    stage: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReportHandOver(Report):
    """For people: a stage's last replica wants to leave, and waits for another one."""

    stage: int
    peer: PeerId


@dataclass(frozen=True, slots=True)
class ReportRecovery(Report):
    """For people and metrics: microbatches whose gradients were lost with a peer, or late."""

    step: int
    what: Literal["recovered", "reattempted", "fenced", "released", "void round"]
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReportCheckpointFailed(Report):
    """For people: the run goes on without this checkpoint."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReportWaiting(Report):
    """For people: replicas that are ready and needed, by stage."""

    ready: tuple[int, ...]
    needed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReportStep(Report):
    """For people and metrics: a step was committed."""

    version: int
    loss: float  # nats a token, before the update
    tokens: int
    norm: float
    seconds: float
    digests: tuple[tuple[tuple[PeerId, str], ...], ...]  # of the new parameters, by stage
    digests_equal: bool


@dataclass(frozen=True, slots=True)
class ReportEvaluation(Report):
    version: int
    loss: float  # nats a token of the held-out split


@dataclass(frozen=True, slots=True)
class ReportPeer(Report):
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
    Send, KeepInput, KeepGradient, KeepPart, RunForward, RunBackward, RunWeightGradients, Forget,
    DropFrames, ClearGradients, SumPart, CombineParts, DropRound, StepOptimizer, LoadState,
    Announce, StartDeadline, SaveCheckpoint, OfferCheckpoint, RaiseEpoch, ReportWaiting, ReportStep,
    ReportEvaluation, ReportPeer, ReportRollback, ReportPause, ReportHandOver, ReportRecovery,
    ReportCheckpointFailed, Stop,
)  # fmt: skip
