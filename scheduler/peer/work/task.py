"""The task of a peer: one microbatch at its stage, as a machine.

The frames of a microbatch are functions of (weights, microbatch, seed), whoever computes them. So
a seat has one task for a microbatch, however many attempts pass it. A task has three computations,
each of which stands somewhere:

                 AWAITED   QUEUED    RUNNING   DONE
    is queued    QUEUED    -         -         QUEUED    its input is here, perhaps once more
    begins       -         RUNNING   -         -
    ends         -         -         DONE      -
    is voided    AWAITED   -         -         AWAITED   it has to be done again

What has no place in the table raises KeyError: it is an error of ours. Weights' gradients are a
computation of their own only where backward leaves them for later.

Rules:
- A backward waits until its forward is done, and it takes the graph and the gradient with it.
- Fields are changed by the methods here alone; what they do to others follows from the table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from swarmrt.ids import MicrobatchId, PeerId, SeatId, Work
from swarmrt.messages import Backward, FrameKind, Granted, Path, Recover
from swarmrt.scheduler.events import ForwardDone


class Status(StrEnum):
    AWAITED = "awaited"  # its frame is not here yet
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


Kind = Literal["forward", "backward", "weights"]
KINDS: tuple[Kind, ...] = ("forward", "backward", "weights")
Happening = Literal["is queued", "begins", "ends", "is voided"]
NEXT: dict[Happening, dict[Status, Status]] = {
    "is queued": {Status.AWAITED: Status.QUEUED, Status.DONE: Status.QUEUED},
    "begins": {Status.QUEUED: Status.RUNNING},
    "ends": {Status.RUNNING: Status.DONE},
    "is voided": {Status.AWAITED: Status.AWAITED, Status.DONE: Status.AWAITED},
}


@dataclass(slots=True)
class Task:
    microbatch: MicrobatchId
    runs_on: int = 0  # the version that it waits for
    attempt: int = 0
    route: tuple[SeatId, ...] = ()  # that the newest attempt passed before this stage
    onward: bool = False  # goes on to the next stage, or to a claim
    # computing
    forward: Status = Status.AWAITED
    backward: Status = Status.AWAITED
    weights: Status = Status.AWAITED  # their gradients, left by backward
    backward_s: float = 0.0  # that it took without them
    is_dropped: bool = False  # nobody is to compute it any more
    input_of: SeatId | None = None  # whose it is that forward is computed from
    gradient_of: SeatId | None = None  # whose gradient backward is computed from
    loss_sum: float = 0.0
    tokens: int = 0
    # frames
    has_gradient: bool = False  # of the output, for backward to use
    has_graph: bool = False
    has_output: bool = False  # retained, to be sent again
    has_input_grad: bool = False
    output_bytes: int = 0
    input_grad_bytes: int = 0
    # the output's way
    pushed_to: SeatId | None = None
    pushed_at: float = 0.0
    pushes: dict[SeatId, tuple[float, float]] = field(default_factory=dict)  # not answered yet:
    # when, and how long that was waited for
    accepted: bool = False
    is_wanted: bool = False  # the output is, by the newest attempt: no gradient has come for it yet
    claimed_at: float = 0.0
    claim_patience_s: float = 0.0  # before it is claimed again
    retries: int = 0  # of the push or the claim
    heirs: set[SeatId] = field(default_factory=set)  # who was given the output
    # ownership
    granted: bool = False  # at the last stage: backward may run
    path: Path = ()  # of its route, by the newest word
    need: tuple[int, ...] = ()  # stages that are to accumulate
    seals: str = ""  # of that path and need
    named: SeatId | None = None  # by the trainer: who gives the gradient, whatever was granted
    # recovery
    asked: dict[FrameKind, SeatId] = field(default_factory=dict)  # frames on their way here
    given: dict[tuple[SeatId, FrameKind], int] = field(default_factory=dict)  # how often
    output_wanted_by: SeatId | None = None  # as soon as it is there

    @classmethod
    def of(cls, work: Work, route: tuple[SeatId, ...], sender: PeerId, runs_on: int) -> Task:
        """Return the task of an attempt whose input has just come."""
        return cls(work.microbatch, runs_on, work.attempt, route, onward=True, input_of=sender)

    # ------------------------------------------------------------------ what it is

    @property
    def work(self) -> Work:
        return Work(self.microbatch, self.attempt)

    @property
    def is_running(self) -> bool:
        return Status.RUNNING in (self.forward, self.backward, self.weights)

    @property
    def is_idle(self) -> bool:
        """Return whether neither a forward nor a backward is about to end."""
        statuses = (self.forward, self.backward)
        return Status.QUEUED not in statuses and Status.RUNNING not in statuses

    @property
    def is_between(self) -> bool:
        """Return whether its forward is done, and its backward is not."""
        return self.has_graph and self.backward is not Status.DONE

    @property
    def is_to_come_back(self) -> bool:
        """Return whether its backward is to come, for which memory is kept."""
        return self.backward is not Status.DONE and not self.microbatch.held_out

    @property
    def waits_for_gradient(self) -> bool:
        """Return whether it is computed forward, and its backward may not run yet."""
        is_forward = self.has_graph and self.backward is Status.AWAITED
        return is_forward and not (self.has_gradient or self.granted)

    def is_new(self, attempt: int, route: tuple[SeatId, ...]) -> bool:
        """Return whether an attempt is not the one that it knows."""
        return attempt > self.attempt or route != self.route

    def passes_on(self, stage: int) -> bool:
        """Return whether a stage before needs the input gradient, and there is somebody to take
        it."""
        if stage == 0 or not any(needed < stage for needed in self.need):
            return False
        return bool(self.path[stage - 1])  # else it is vacant: its next owner asks

    @property
    def held_bytes(self) -> int:
        """Return the bytes of its frames that are retained."""
        output_bytes = self.output_bytes if self.has_output else 0
        return output_bytes + (self.input_grad_bytes if self.has_input_grad else 0)

    # ------------------------------------------------------------------ computing

    def move(self, kind: Kind, happening: Happening) -> None:
        """Move one of its computations to where the table says. For the queue of computations."""
        setattr(self, kind, NEXT[happening][getattr(self, kind)])

    def drop(self) -> None:
        """Compute nothing of it any more. What runs ends, and counts for nothing."""
        self.is_dropped = True

    def forward_computed(self, event: ForwardDone, *, is_last: bool) -> None:
        """Take what a forward has made: a loss or an output, and a graph for backward."""
        self.loss_sum, self.tokens = event.loss_sum, event.tokens
        self.has_graph = not event.microbatch.held_out
        self.has_output, self.output_bytes = not is_last, event.frame_bytes

    def backward_computed(self, frame_bytes: int, *, is_first: bool) -> None:
        """Take what a backward has made, and forget what it has used up."""
        self.has_graph = self.has_gradient = False
        self.has_input_grad, self.input_grad_bytes = not is_first, frame_bytes

    def weights_left(self, seconds: float) -> None:
        """Note how long a backward took that has left the weights' gradients."""
        self.backward_s = seconds

    def frames_dropped(self) -> None:
        """Note that what could be sent again is gone."""
        self.has_output = self.has_input_grad = False

    # ------------------------------------------------------------------ what comes

    def tried_again(self, attempt: int, route: tuple[SeatId, ...], *, was_asked: bool) -> None:
        """Follow the newest attempt. It goes on from here, unless only its frame was asked for."""
        self.attempt, self.route = attempt, route
        self.onward = self.onward or not was_asked

    def input_came(self, sender: PeerId) -> None:
        """Take an input to compute it from. A backward that has run has to run once more."""
        self.input_of = sender
        if self.backward is Status.DONE:
            self.move("backward", "is voided")
            self.granted = False  # this attempt's grant may differ

    def gradient_came(self, sender: PeerId) -> bool:
        """Take the output's gradient; return False if it is of no use any more."""
        self.asked.pop("gradient", None)
        if self.backward is not Status.AWAITED or self.has_gradient:
            return False
        self.has_gradient, self.gradient_of = True, sender
        return True

    def asked_for(self, owner: SeatId, kind: FrameKind) -> None:
        self.asked[kind] = owner

    def frame_came(self, kind: FrameKind) -> bool:
        """Return whether a frame that comes was asked for. It is so no more."""
        return self.asked.pop(kind, None) is not None

    # ------------------------------------------------------------------ the output's way

    def push(self, to: SeatId | None) -> None:
        """Hand the output on, from now; or to nobody, who has room for it."""
        self.accepted, self.is_wanted = False, True
        self.pushed_to = to

    def push_began(self, to: SeatId, now: float, patience_s: float) -> None:
        """Note when it was pushed, and for how long the answer is waited for at first."""
        self.pushed_at = now
        self.pushes.setdefault(to, (now, patience_s))

    def push_answered(self, sender: PeerId) -> tuple[float, float] | None:
        """Return when the first push was that has its answer now, and how long that was waited
        for; None if it has it already."""
        return self.pushes.pop(sender, None)

    def taken(self) -> None:
        """Note that whom it was pushed to has taken it."""
        self.accepted, self.retries = True, 0

    def given_to(self, to: SeatId) -> None:
        """Note who has the output: a gradient of it may come from there."""
        self.heirs.add(to)

    def came_back(self) -> None:
        """Note that the gradient of the output is here."""
        self.is_wanted = False

    def claim_began(self, now: float, patience_s: float) -> None:
        """Note when its first claim was, and how long the answer was waited for."""
        if not self.retries:
            self.claimed_at, self.claim_patience_s = now, patience_s

    def overdue(self) -> None:
        """Count that it was pushed, or claimed, in vain."""
        self.retries += 1

    # ------------------------------------------------------------------ ownership

    def backward_granted(self, message: Granted) -> None:
        """Let backward run at the last stage, by the trainer's word."""
        self.granted, self.retries = True, 0
        self.follow(message)

    def follow(self, message: Granted | Backward | Recover) -> None:
        """Follow a path that the trainer has granted."""
        self.path, self.need, self.seals = message.path, message.need, message.seals

    def owned_anew(self, message: Recover, *, is_last: bool) -> None:
        """Make ready to accumulate it: without a graph it has to be computed anew."""
        self.follow(message)
        self.granted = self.granted or is_last
        if self.forward is Status.DONE and not self.has_graph:  # it only passed on what came
            self.move("forward", "is voided")
            self.move("backward", "is voided")

    def giver_named(self, giver: SeatId) -> None:
        """Take the gradient from whom the trainer has named."""
        self.named = giver

    def send_input_grad_to(self, peer: SeatId, stage: int) -> None:
        """Let a new owner of the stage before have the gradient of the input."""
        self.path = (*self.path[:stage], peer, *self.path[stage + 1 :])
        self.need = tuple(sorted({*self.need, stage}))

    # ------------------------------------------------------------------ its neighbours' recovery

    def wish_came(self, peer: SeatId) -> None:
        """Give the output to somebody as soon as it is there."""
        self.output_wanted_by = peer

    def take_wish(self) -> SeatId | None:
        """Return who is to be given the output, now that it is there; nobody is any more."""
        wanted_by, self.output_wanted_by = self.output_wanted_by, None
        return wanted_by

    def count_given(self, peer: SeatId, kind: FrameKind) -> int:
        """Return how often one has asked for a frame, with this time."""
        number = self.given[peer, kind] = self.given.get((peer, kind), 0) + 1
        return number

    def validate(self) -> None:
        """Check what always holds of it."""
        if self.backward in (Status.QUEUED, Status.RUNNING):
            assert self.forward is Status.DONE, self
        if self.forward is not Status.DONE:
            assert self.backward is Status.AWAITED, self
        if self.backward is Status.QUEUED or self.backward is Status.RUNNING:
            assert self.has_graph, self
