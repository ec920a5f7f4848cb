"""What a peer computes, and what it has in its accumulators.

Rules:
- One computation at a time: backward before forward, and within each the oldest first.
- Where computations are short, the next ones are handed over before the running one ends, so that
  the device does not wait for the event loop, and their outcomes can come back together. Where they
  are long the choice is left open: a gradient that comes meanwhile goes first.
- A microbatch is accumulated at most once, by the record.
- One that was given up belongs to others, until it is granted anew: what is repeated of an earlier
  grant counts no more.
- What is void while it runs counts no more, and nothing else is started until it is over.
"""

from __future__ import annotations

from swarmrt.ids import MicrobatchId
from swarmrt.scheduler.estimate import Estimate
from swarmrt.scheduler.events import BackwardDone, ForwardDone
from swarmrt.scheduler.instructions import (
    ClearGradients,
    Forget,
    Instruction,
    RunBackward,
    RunForward,
)
from swarmrt.scheduler.seat import Seat
from swarmrt.scheduler.tasks import MOST_AHEAD, Task, Tasks

SHORT_S = 0.03  # a hundred times what a turn of the event loop takes
AHEAD_S = 0.02  # of computing is handed over ahead, where that is several computations
MAX_QUEUED = 1024  # computations, however little time they seem to take


class Computing:
    def __init__(self, seat: Seat) -> None:
        self.tasks = Tasks(seat.settings.staleness)
        self.record: set[MicrobatchId] = set()  # accumulated, and not applied yet
        self.given_up: set[MicrobatchId] = set()  # released, and not granted since
        self.done = 0  # computations, ever
        self._seat = seat
        self._accumulating: set[MicrobatchId] = set()  # that a started backward will accumulate
        self._forward_time = Estimate()
        self._backward_time = Estimate()

    def compute(self) -> list[Instruction]:
        """Start what may be started."""
        instructions: list[Instruction] = []
        while (started := self._start_next()) is not None:
            instructions.append(started)
        return instructions

    def _start_next(self) -> RunForward | RunBackward | None:
        seat = self._seat
        may_start = self.tasks.may_start(self._ahead)
        if not may_start or not seat.is_serving or seat.is_stepping:
            return None
        task = self.tasks.next_backward(seat.version)
        if task is not None:
            needed = seat.stage in task.need and task.microbatch not in self.record
            if needed:
                self._accumulating.add(task.microbatch)
            return RunBackward(task.microbatch, needed)
        task = self.tasks.next_forward(seat.version)
        return RunForward(task.microbatch) if task is not None else None

    def forward_finished(self, event: ForwardDone) -> tuple[Task | None, list[Instruction]]:
        """Its task; or none, and what becomes of a computation that is void."""
        task = self._finished(event.microbatch, self._forward_time, event.seconds)
        return task, self._forget_void(event.microbatch) if task is None else []

    def backward_finished(self, event: BackwardDone) -> tuple[Task | None, list[Instruction]]:
        """The same. What a void one has added to the accumulators is cleared."""
        microbatch = event.microbatch
        task = self._finished(microbatch, self._backward_time, event.seconds)
        accumulated = microbatch in self._accumulating
        self._accumulating.discard(microbatch)
        if task is None:
            clear: list[Instruction] = [ClearGradients()] if accumulated else []
            return None, [*clear, *self._forget_void(microbatch)]
        if accumulated:
            self.record.add(microbatch)
        return task, []

    def _finished(
        self, microbatch: MicrobatchId, estimate: Estimate, seconds: float
    ) -> Task | None:
        estimate.add(seconds)
        self.done += 1
        return self.tasks.finished(microbatch)

    def granted(self, microbatch: MicrobatchId, need: tuple[int, ...]) -> None:
        """Where this stage is needed, it is owned here from now on."""
        if self._seat.stage in need:
            self.given_up.discard(microbatch)

    def _forget_void(self, microbatch: MicrobatchId) -> list[Instruction]:
        """What a void computation has left, unless it is to be computed again."""
        return [Forget(microbatch)] if microbatch not in self.tasks else []

    @property
    def _ahead(self) -> int:
        """How many computations are handed over before the running one ends."""
        longest_s = max(self._forward_time.mean_s, self._backward_time.mean_s)
        if not self._forward_time.samples or longest_s >= SHORT_S:
            return 0
        if longest_s <= AHEAD_S / MOST_AHEAD:
            return MOST_AHEAD
        return max(1, int(AHEAD_S / longest_s))

    # ------------------------------------------------------------------ the accumulators

    def void(self) -> list[Instruction]:
        """Drop all tasks, and what is in the accumulators."""
        instructions: list[Instruction] = [Forget(mb) for mb in self.tasks.clear()]
        if self.record or self._accumulating:
            instructions.append(ClearGradients())
        self.record.clear()
        self.given_up.clear()
        return instructions

    def applied(self, version: int) -> list[Task]:
        """The steps before this version are over; tasks that are left of them."""
        self.record = {mb for mb in self.record if mb.step >= version}
        self.given_up = {mb for mb in self.given_up if mb.step >= version}
        return [task for task in self.tasks if task.microbatch.step < version]

    def accumulated(self, step: int) -> set[int]:
        """Indices of the step's microbatches."""
        return {microbatch.index for microbatch in self.record if microbatch.step == step}

    # ------------------------------------------------------------------ how much there is to do

    @property
    def is_idle(self) -> bool:
        return not (len(self.tasks) or self.record or self.tasks.started)

    @property
    def is_full(self) -> bool:
        return self.backlog_s > self._seat.settings.queue_s or (
            sum(self.tasks.queued()) >= MAX_QUEUED
        )

    @property
    def service_s(self) -> float:
        """Of one forward and backward; 0 when it is not known."""
        return self._forward_time.mean_s + self._backward_time.mean_s

    @property
    def backlog_s(self) -> float:
        forwards, backwards = self.tasks.queued()
        return forwards * self._forward_time.mean_s + backwards * self._backward_time.mean_s
