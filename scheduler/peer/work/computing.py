"""The computations of a seat: what is computed next, and what becomes of what was computed.

Rules:
- One computation at a time: backward before forward, and within each the oldest first.
- Where a stage before waits for the gradient, and computations are long, backward leaves the
  weights' gradients for later. They are computed when there is nothing else to do, when they hold
  up the commit of an earlier step, or when too many are left (zero bubble pipelines: Qi et al.
  2023, section 2).
- At the last stage, a grant that comes in next to no time is waited for: its backward goes first.
- One that was given up belongs to others, until it is granted anew: what is repeated of an earlier
  grant counts no more.
- What is void while it runs counts no more, and nothing else is started until it is over.
"""

from __future__ import annotations

from swarmrt.ids import MicrobatchId
from swarmrt.scheduler.events import BackwardDone, ForwardDone, WeightGradientsDone
from swarmrt.scheduler.instructions import (
    ClearGradients,
    Forget,
    Instruction,
    RunBackward,
    RunForward,
    RunWeightGradients,
)
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.strategy import Versions
from swarmrt.scheduler.peer.work.pace import Pace
from swarmrt.scheduler.peer.work.queue import ComputeQueue
from swarmrt.scheduler.peer.work.task import KINDS, Kind, Task
from swarmrt.scheduler.peer.work.tasks import Tasks
from swarmrt.scheduler.wiring.limits import most_given

MAX_QUEUED = 1024  # computations, however little time they seem to take


class Computing:
    def __init__(self, seat: Seat, versions: Versions, queue: ComputeQueue) -> None:
        self.queue = queue
        self.pace = Pace(queue)
        self.tasks = Tasks(queue)
        self.given_up: set[MicrobatchId] = set()  # released, and not granted since
        self.done = 0  # computations, ever
        self.awaited: MicrobatchId | None = None  # its grant is about to come
        self._seat, self._versions, self._accumulators = seat, versions, versions.accumulators

    def compute(self) -> list[Instruction]:
        """Start what may be started."""
        instructions: list[Instruction] = []
        while (started := self._start_next()) is not None:
            instructions.append(started)
        return instructions

    def _start_next(self) -> RunForward | RunBackward | RunWeightGradients | None:
        seat = self._seat
        may_start = self.queue.may_start(self.pace.ahead)
        if not may_start or not seat.is_serving or seat.is_stepping:
            return None
        chosen = self._choose()
        if chosen is None:
            return None
        kind, task = chosen
        self.queue.begin(kind, task)
        match kind:
            case "forward":
                return RunForward(task.microbatch)
            case "backward":
                return self._backward(task)
            case "weights":
                self._accumulators.begin(task.microbatch)
                return RunWeightGradients(task.microbatch, self._own_step(task))

    def _choose(self) -> tuple[Kind, Task] | None:
        """Return what is computed next."""
        newest, queue = self._versions.newest, self.queue
        kind: Kind = "backward"
        task = queue.oldest("backward", newest)
        if task is None and self.awaited is not None:
            return None
        if task is None:
            kind, task = "forward", queue.oldest("forward", newest)
        left = queue.oldest("weights", newest)
        if left is not None and (task is None or self._goes_first(left, task)):
            return "weights", left
        return (kind, task) if task is not None else None

    def _goes_first(self, left: Task, other: Task) -> bool:
        """Return whether weights' gradients that are left hold up a commit, or are too many."""
        is_due = self._versions.is_due_before(left.microbatch, other.microbatch)
        return is_due or self.queue.waiting("weights") > self._seat.settings.most_left

    def _backward(self, task: Task) -> RunBackward:
        seat, microbatch = self._seat, task.microbatch
        needed = seat.stage in task.need and not self.is_accumulated(microbatch)
        if needed:
            self._accumulators.begin(microbatch)
        may_wait = self.pace.is_long and seat.settings.most_left > 0
        later = needed and may_wait and task.passes_on(seat.stage)
        if later:
            self._accumulators.leave_weights(microbatch)
        own_step = self._own_step(task) if needed and not later else 0
        return RunBackward(microbatch, needed, later, own_step)

    def _own_step(self, task: Task) -> int:
        """Return of how many microbatches the replica may make a step of its own now."""
        between = self.tasks.between() - task.is_between
        return self._versions.own_step(task.microbatch, between)

    def forward_finished(self, event: ForwardDone) -> tuple[Task | None, list[Instruction]]:
        """Record a finished forward. Returns its task; or none, and what becomes of a computation
        that is void."""
        self.done += 1
        self.pace.forward_took(event.seconds)
        task = self.queue.end(event.microbatch)
        return task, self._forget_void(event.microbatch) if task is None else []

    def backward_finished(self, event: BackwardDone) -> tuple[Task | None, list[Instruction]]:
        """Record a finished backward, as `forward_finished` records a forward. What a void one has
        added to the accumulators is cleared."""
        self.done += 1
        task = self.queue.end(event.microbatch)
        if task is None or not self._accumulators.is_half_added(event.microbatch):
            self.pace.backward_took(event.seconds)
            return task, self._added(event.microbatch, task)
        self._accumulators.half_added(event.microbatch)
        task.weights_left(event.seconds)
        self.tasks.queue("weights", task)
        return task, []

    def weight_gradients_finished(
        self, event: WeightGradientsDone
    ) -> tuple[Task | None, list[Instruction]]:
        """Record the end of what backward had left, as `forward_finished` records a forward."""
        self.done += 1
        task = self.queue.end(event.microbatch)
        if task is not None:
            self._accumulators.weights_added(event.microbatch)
            self.pace.backward_took(task.backward_s + event.seconds)
        return task, self._added(event.microbatch, task)

    def failed(self, microbatch: MicrobatchId) -> tuple[Task | None, list[Instruction]]:
        """Record a computation that raised an error, as `forward_finished` records a good one."""
        self.done += 1
        task = self.queue.end(microbatch)
        if task is None:
            return None, self._added(microbatch, None)
        self._accumulators.failed(microbatch)
        return task, []

    def _added(self, microbatch: MicrobatchId, task: Task | None) -> list[Instruction]:
        """Take note that a computation is over which may have added to the accumulators."""
        was_added = self._accumulators.ended(microbatch)
        if task is None:
            clear: list[Instruction] = [ClearGradients()] if was_added else []
            return [*clear, *self._forget_void(microbatch)]
        if was_added:
            self._accumulators.record.add(microbatch)
        return []

    def is_accumulated(self, microbatch: MicrobatchId) -> bool:
        """Return whether it is in the accumulators, or on its way into them. What is void and still
        runs is cleared from them."""
        accumulators = self._accumulators
        is_being_added = accumulators.is_adding(microbatch) and self.queue.is_started(microbatch)
        return is_being_added or accumulators.has(microbatch)

    def granted(self, microbatch: MicrobatchId, need: tuple[int, ...]) -> None:
        """Own this stage of the microbatch from now on, where it is needed."""
        if self._seat.stage in need:
            self.given_up.discard(microbatch)

    def _forget_void(self, microbatch: MicrobatchId) -> list[Instruction]:
        """Forget what a void computation has left, unless it is to be computed again."""
        return [Forget(microbatch)] if microbatch not in self.tasks else []

    # ------------------------------------------------------------------ what is over

    def void(self) -> list[Instruction]:
        """Drop all tasks, and what is in the accumulators."""
        instructions: list[Instruction] = [Forget(mb) for mb in self.tasks.clear()]
        instructions += self._accumulators.void()
        self.awaited = None
        self.given_up.clear()
        return instructions

    def forget_what_is_over(self) -> list[Task]:
        """Forget what a version that has just been made has settled. Return the tasks that are left
        of it."""
        is_over = self._versions.is_over
        self._accumulators.forget(is_over)
        self.given_up = {mb for mb in self.given_up if not is_over(mb)}
        return [task for task in self.tasks if is_over(task.microbatch)]

    # ------------------------------------------------------------------ how much there is to do

    @property
    def is_idle(self) -> bool:
        """Return whether nothing of any step is left here."""
        return not (len(self.tasks) or self._accumulators.record or self.queue.num_started)

    @property
    def is_full(self) -> bool:
        """Return whether no more work is taken."""
        waiting = sum(map(self.queue.waiting, KINDS))
        return waiting >= MAX_QUEUED or self.pace.backlog_s > self._seat.settings.queue_s

    @property
    def has_room(self) -> bool:
        """Return whether the memory has room for one more microbatch between forward and backward.
        One more may wait, so that the device need not."""
        most = most_given(self._seat.settings.holds)
        if not most or len(self.tasks) < most:
            return True
        return sum(task.is_to_come_back for task in self.tasks) < most

    def validate(self) -> None:
        """Check that tasks, and what is accumulated, are of microbatches that there are."""
        self.tasks.validate()
        settings = self._seat.settings
        for task in self.tasks:
            _, index, held_out = task.microbatch
            number = settings.eval_microbatches if held_out else settings.microbatches
            assert 0 <= index < number, task
        for _, index, held_out in self._accumulators.record:
            assert 0 <= index < settings.microbatches and not held_out
