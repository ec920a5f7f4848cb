"""The instructions of the cores to their world. Payloads are named here, and kept by the world."""

from __future__ import annotations

from typing import Literal, get_args

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Message, TooSlow
from swarmrt.recorded import Recorded
from swarmrt.scheduler.local_work import LocalWork


class InstructionBase(Recorded, frozen=True):
    """Base of all instructions."""


class Report(InstructionBase, frozen=True):
    """Base of all that is only told: to people, views and metrics."""


class PayloadBase(Recorded, frozen=True):
    """Base of the names of tensors that travel with a message."""


class Batch(PayloadBase, frozen=True):
    """Token ids and targets of a microbatch, from the trainer's data."""

    microbatch: MicrobatchId


class Output(PayloadBase, frozen=True):
    """A stage's output and the targets that ride along."""

    microbatch: MicrobatchId


class InputGrad(PayloadBase, frozen=True):
    """The gradient of a stage's input. At the last stage of a one-stage run there is none."""

    microbatch: MicrobatchId


class UpdatedPart(PayloadBase, frozen=True):
    """Part `index` of `parts` of the state that this round's owners have made."""

    step: int
    round: int
    index: int
    parts: int


class GradientPart(PayloadBase, frozen=True):
    """Slice `index` of `parts` of this stage's accumulated gradients, or of the summed ones."""

    step: int
    round: int
    index: int
    parts: int
    summed: bool


Payload = Batch | Output | InputGrad | UpdatedPart | GradientPart


class Send(InstructionBase, frozen=True):
    to: PeerId
    message: Message
    payload: Payload | None = None


class KeepInput(InstructionBase, frozen=True):
    """Keep the payload of the message that has just come: a microbatch's input and targets.

    A payload is dropped unless an instruction says to keep it.
    """

    microbatch: MicrobatchId


class KeepGradient(InstructionBase, frozen=True):
    """Keep the payload that has just come: the gradient of this stage's output."""

    microbatch: MicrobatchId


class KeepPart(InstructionBase, frozen=True):
    """Keep the payload that has just come: a part of a round."""

    sender: PeerId
    step: int
    round: int
    index: int
    summed: bool
    parts: int = 0  # of the round; 0 while it is not known yet
    updated: bool = False


class DropPart(InstructionBase, frozen=True):
    """Forget a part that was kept before its round was known, of which it is none."""

    sender: PeerId
    step: int
    round: int
    index: int
    summed: bool
    updated: bool = False


class RunForward(InstructionBase, frozen=True):
    """Compute; the outcome is ForwardDone."""

    microbatch: MicrobatchId


class RunBackward(InstructionBase, frozen=True):
    """Compute, and add to the accumulator or not; the outcome is BackwardDone.

    `later`: the weights' gradients may be left for RunWeightGradients. `own_step`: once the
    gradients of so many microbatches wait for it, the replica makes a step of its own; 0 for none.
    """

    microbatch: MicrobatchId
    accumulate: bool
    later: bool = False
    own_step: int = 0


class RunWeightGradients(InstructionBase, frozen=True):
    """Add what backward has left to the accumulator; the outcome is WeightGradientsDone.
    `own_step`: as with RunBackward."""

    microbatch: MicrobatchId
    own_step: int = 0


class Forget(InstructionBase, frozen=True):
    """Drop whatever is kept of a microbatch: input, graph, output, gradients of activations."""

    microbatch: MicrobatchId


class DropFrames(InstructionBase, frozen=True):
    """Drop the frames that are retained of a microbatch: output and input gradient."""

    microbatch: MicrobatchId


class ClearGradients(InstructionBase, frozen=True):
    """Clear what this peer accumulated, which is void: an earlier epoch's, or fenced."""


class Contribute(InstructionBase, frozen=True):
    """Fix what this replica gives a round of what its own steps have moved, and of what is still to
    be made a step of; the outcome is Contributed."""

    step: int
    round: int


class SumPart(InstructionBase, frozen=True):
    """Add the contributors' slices in roster order, divide by tokens; the outcome is PartSummed.

    The slice of this peer itself comes from its own accumulator, or its contribution.
    """

    step: int
    round: int
    index: int
    parts: int
    contributors: tuple[PeerId, ...]  # members that accumulated anything, in roster order
    tokens: int  # or microbatches, of contributions


class CombineParts(InstructionBase, frozen=True):
    """Join the summed parts, which are all here; the outcome is GradientCombined."""

    step: int
    round: int
    parts: int


class UpdatePart(InstructionBase, frozen=True):
    """Clip by the global norm, and update this part of the parameters and moments beside those that
    count; the outcome is PartUpdated."""

    step: int
    round: int
    index: int
    parts: int
    norm: float


class JoinUpdate(InstructionBase, frozen=True):
    """Join the updated parts, which are all here; the outcome is UpdateJoined. A member looks at
    them as well: what another owner could not have made of the gradient is PartUnfit."""

    step: int
    round: int
    parts: int
    owners: tuple[PeerId, ...] = ()  # of the parts, in turn; nobody looks at them without
    norm: float = 0.0


class DropRound(InstructionBase, frozen=True):
    """Forget the parts and the sum of a round that is void. The accumulators stay as they are."""

    step: int
    round: int


class StepOptimizer(InstructionBase, frozen=True):
    """Clip by the global norm, update with the round's sum, clear the accumulators; the outcome is
    Stepped. Or adopt the state that the round's owners have made, with `adopt` so many parts of it.
    """

    step: int
    round: int
    norm: float
    snapshot: bool
    skip: bool = False  # no update: the version after it has the same weights
    adopt: int = 0


class LoadState(InstructionBase, frozen=True):
    """Get and load a version; the outcome is StateLoaded or StateUnavailable.

    No donors: version 0, built from the run's seed. It replaces one that is under way.
    """

    version: int
    donors: tuple[PeerId, ...]
    digest: str = ""  # of the version's parameters, where it is known


class StopLoading(InstructionBase, frozen=True):
    """Do not go on loading what LoadState has asked for: no outcome is waited for."""


PeerStatus = Literal["joining", "serving", "leaving"]  # in the directory


class FreeDevice(InstructionBase, frozen=True):
    """Bring the state to the host's memory, and give the device back: nothing is computed there any
    more, until ResumeRequested."""


class Announce(InstructionBase, frozen=True):
    """Write this peer's state to the directory."""

    status: PeerStatus
    version: int


class RenewEvery(InstructionBase, frozen=True):
    """Write that state again at least once in so many seconds, or in a third of a record's life
    where that is longer: a large swarm's directory has much to take."""

    every_s: float


class StartDeadline(InstructionBase, frozen=True):
    """Answer with DeadlinePassed(name) at this time. It replaces the earlier one of that name."""

    name: str
    at: float


class OpenSeat(InstructionBase, frozen=True):
    """Open a seat at this stage, beside those that there are; the outcome is SeatOpened or
    SeatNotOpened."""

    stage: int


class CloseSeat(InstructionBase, frozen=True):
    """Ask the seat at this stage to leave; when it has, SeatClosed comes."""

    stage: int
    reason: str


class SaveCheckpoint(InstructionBase, frozen=True):
    """Collect one snapshot a stage; the outcome is CheckpointSaved or CheckpointFailed."""

    version: int
    epoch: int
    donors: tuple[tuple[PeerId, ...], ...]  # by stage
    digests: tuple[str, ...]  # of the parameters, by stage


class RaiseEpoch(InstructionBase, frozen=True):
    """Write the epoch down, for the next incarnation to be higher, before going on."""

    epoch: int


class KeepUnlike(InstructionBase, frozen=True):
    """Write down of which stages the replicas are unlike, for the next incarnation to know."""

    stages: tuple[int, ...]


class OfferCheckpoint(InstructionBase, frozen=True):
    """Be the donor of the checkpoint of this version, for every stage."""

    version: int


class Expel(InstructionBase, frozen=True):
    """Take this peer's membership and drop its link: it has said what no honest peer says."""

    peer: PeerId
    reason: str


class ReportExpelled(Report, frozen=True):
    """A report for people: the peer does not take part in this run any more."""

    peer: PeerId
    reason: str


class ReportUnlike(Report, frozen=True):
    """A word for people: this peer rounds differently than the others of its stage, so that from
    now on the owners of parts update."""

    stage: int
    peer: PeerId


class ReportStall(Report, frozen=True):
    """A report for people: nothing has come forward for so long, and what is waited for."""

    seconds: float
    awaited: str


class ReportLate(Report, frozen=True):
    """A word for people: an update takes longer than it ever did, and who is waited for."""

    version: int
    seconds: float
    awaited: str


class ReportRollback(Report, frozen=True):
    """A report for people: the live state is lost, and the run goes back to this version."""

    version: int
    lost_steps: int
    reason: str


class ReportPause(Report, frozen=True):
    """A report for people: the run cannot go on until a replica of the stage appears."""

    stage: int
    reason: str


class ReportHandOver(Report, frozen=True):
    """A report for people: a stage's last replica wants to leave, and waits for another one."""

    stage: int
    peer: PeerId


class ReportRecovery(Report, frozen=True):
    """A report for people and metrics: microbatches whose gradients were lost with a peer, or
    late."""

    step: int
    what: Literal["recovered", "reattempted", "fenced", "released", "void round", "skipped"]
    count: int
    reason: str


class ReportCheckpointFailed(Report, frozen=True):
    """A report for people: the run goes on without this checkpoint."""

    version: int
    reason: str


class ReportWaiting(Report, frozen=True):
    """A report for people: replicas that are ready and needed, by stage."""

    ready: tuple[int, ...]
    needed: tuple[int, ...]
    loading: tuple[int, ...] = ()  # replicas that are let in, and get their state
    why: tuple[str, ...] = ()  # by stage: who else could not serve it; empty for nobody


class ReportUnable(Report, frozen=True):
    """A report for people: this peer cannot serve the stage."""

    stage: int
    peer: PeerId
    reason: str


class ReportMove(Report, frozen=True):
    """A report for people: what becomes of a process that serves where it helps most, and why."""

    peer: PeerId
    stage: int
    what: Literal["loads", "serves", "forgets", "stays"]
    reason: str


MovePhase = Literal["", "loading", "switching", "serving both", "draining"]
"""How far a move is: the state is on its way; it is there, and the seat is let in between commits;
both are served; the first one does what it has accepted, and takes nothing new."""


class ReportArranged(Report, frozen=True):
    """A report for people, when it changes: where a process serves that does so where it helps
    most, where it goes, and what it stands by for. With nothing of it, it is not there any more."""

    peer: PeerId
    serves: tuple[int, ...] = ()
    to: int | None = None  # the stage to which it moves, if it moves
    phase: MovePhase = ""
    stands_by: tuple[int, ...] = ()  # whose state it keeps current
    loads: tuple[int, ...] = ()  # to stand by


class ReportStep(Report, frozen=True):
    """A report for people and metrics: a step was committed."""

    version: int
    loss: float  # nats a token, before the update
    tokens: int
    norm: float
    seconds: float
    digests: tuple[tuple[tuple[PeerId, str], ...], ...]  # of the new parameters, by stage
    digests_equal: bool
    skipped: bool = False  # its gradient was not finite: no update was made
    local: tuple[LocalWork, ...] = ()  # of each stage: all of their own steps, the furthest drift
    microbatches: int = 0  # in it, where steps have not all as many


class ReportEvaluation(Report, frozen=True):
    version: int
    loss: float  # nats a token of the held-out split


class ReportPeer(Report, frozen=True):
    """A report for people: what a peer says of itself."""

    peer: PeerId
    stage: int
    state: str
    version: int
    queued: int
    done: int
    service_s: float


class ReportIslands(Report, frozen=True):
    """A word to people: replicas work in so many islands from now on, these in another one than
    before."""

    number: int
    moved: tuple[tuple[PeerId, int], ...]  # and to which


class ReportLeftOut(Report, frozen=True):
    """A word to people: the run goes on without this peer for a while, and why."""

    gradient_bytes: int
    bytes_per_s: float  # of this peer's link, the slower way; 0 if that is not known
    what: TooSlow
    takes_s: float
    step_s: float  # that a step takes without it
    rest_s: float  # before it is tried again


WaitsFor = Literal["trainer", "hail", "admission", "state", "next try"]
"""The trainer to come back, a first word of it, to be admitted, the state of the stage, or the time
to try again to get that."""


class ReportWaitsFor(Report, frozen=True):
    """A word to the owner of a peer that serves nothing: what it waits for, and for how long."""

    what: WaitsFor
    seconds: float


class Stop(InstructionBase, frozen=True):
    """Leave. An error is shown to the user and makes the exit code non-zero."""

    reason: str
    error: bool
    microbatches: tuple[MicrobatchId, ...] = ()  # that an error is about, to be found in the data


PeerInstruction = (
    Send | KeepInput | KeepGradient | KeepPart | RunForward | RunBackward | RunWeightGradients
    | Forget | DropFrames | ClearGradients | Contribute | SumPart | CombineParts | UpdatePart
    | JoinUpdate | DropPart | DropRound | StepOptimizer | LoadState | StopLoading | Announce
    | RenewEvery | FreeDevice | StartDeadline | ReportLeftOut | ReportWaitsFor | Stop
)  # fmt: skip
StewardInstruction = OpenSeat | CloseSeat | Send | StartDeadline | Stop
TrainerInstruction = (
    Send | SaveCheckpoint | OfferCheckpoint | RaiseEpoch | KeepUnlike | Expel | ReportWaiting
    | ReportStep | ReportEvaluation | ReportPeer | ReportRollback | ReportPause | ReportHandOver
    | ReportRecovery | ReportCheckpointFailed | ReportExpelled | ReportStall | ReportLate
    | ReportUnlike | ReportUnable | ReportIslands | ReportMove | ReportArranged | StartDeadline
    | Stop
)  # fmt: skip
Instruction = PeerInstruction | TrainerInstruction | StewardInstruction
ALL_INSTRUCTIONS: tuple[type[Instruction], ...] = get_args(Instruction)
