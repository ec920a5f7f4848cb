"""A peer's way back: running backward once it is granted, accumulating, and passing it on.

Rules:
- What comes again is answered from the record, and accumulates nothing.
- The receipt goes to the trainer, the input's gradient to the stage before, if one needs it.
"""

from __future__ import annotations

from swarmrt.ids import MicrobatchId
from swarmrt.messages import Accumulated, Backward, Granted
from swarmrt.scheduler.computing import Computing
from swarmrt.scheduler.events import BackwardDone
from swarmrt.scheduler.forwards import Forwards
from swarmrt.scheduler.instructions import InputGrad, Instruction, KeepGradient, Send
from swarmrt.scheduler.reducing import Reducing
from swarmrt.scheduler.seat import Seat
from swarmrt.scheduler.tasks import Phase, Task


class Backwards:
    def __init__(
        self, seat: Seat, computing: Computing, forwards: Forwards, reducing: Reducing
    ) -> None:
        self._seat, self._computing, self._tasks = seat, computing, computing.tasks
        self._forwards, self._reducing = forwards, reducing

    def granted(self, message: Granted, now: float) -> list[Instruction]:
        task = self._tasks.get(message.microbatch)
        if task is None or message.epoch != self._seat.epoch or not self._seat.is_last:
            return []
        if not task.granted:
            self._forwards.claim_answered(task, now)
        task.granted, task.retries = True, 0
        task.path, task.need = message.path, message.need
        self._computing.granted(message.microbatch, message.need)
        return self.run_or_answer(task)

    def came(self, message: Backward) -> list[Instruction]:
        task = self._tasks.get(message.microbatch)
        if task is None or message.epoch != self._seat.epoch or self._seat.is_last:
            return []
        task.path, task.need = message.path, message.need
        self._computing.granted(message.microbatch, message.need)
        task.asked.pop("gradient", None)
        keep: list[Instruction] = []
        if task.backward is Phase.AWAITED and not task.has_gradient:
            task.has_gradient = True
            keep = [KeepGradient(message.microbatch)]
        return keep + self.run_or_answer(task)

    def run_or_answer(self, task: Task) -> list[Instruction]:
        """Backward, if it has not run; else what it gave."""
        if task.backward is Phase.DONE:
            return self._receipts(task)
        is_granted = self._seat.is_last and task.granted
        may_run = task.has_graph and (task.has_gradient or is_granted)
        if task.backward is not Phase.AWAITED or task.forward is not Phase.DONE or not may_run:
            return []
        if task.microbatch in self._computing.record and not self._passes_on(task):
            return self._receipts(task)
        self._tasks.queue_backward(task)
        return self._computing.compute()

    def _passes_on(self, task: Task) -> bool:
        """Whether a stage before this one needs the input gradient."""
        stage = self._seat.stage
        if self._seat.is_first or not any(needed < stage for needed in task.need):
            return False
        return bool(task.path[stage - 1])  # else it is vacant: its next owner asks

    def done(self, event: BackwardDone) -> list[Instruction]:
        was_recorded = event.microbatch in self._computing.record
        task, void = self._computing.backward_finished(event)
        if task is None:
            return [*void, *self._computing.compute()]
        task.backward = Phase.DONE
        task.has_graph = task.has_gradient = False
        task.has_input_grad, task.input_grad_bytes = not self._seat.is_first, event.frame_bytes
        if not was_recorded and event.microbatch in self._computing.record:
            void = self._reducing.void(event.microbatch.step)  # what is to be reduced has changed
        given = [*void, *self._receipts(task)]  # before the frame may be dropped
        kept = self._forwards.retention.keep_within(task)
        return [*given, *kept, *self._computing.compute()]

    def _receipts(self, task: Task) -> list[Instruction]:
        """Give the previous stage its gradient, and tell the trainer what is accumulated."""
        instructions: list[Instruction] = []
        if self._passes_on(task) and task.has_input_grad:
            instructions = [self.send_input_grad(task)]
        if task.microbatch in self._computing.record:
            instructions.append(self.receipt(task.microbatch))
        return instructions

    def receipt(self, microbatch: MicrobatchId) -> Send:
        seat = self._seat
        return seat.to_trainer(Accumulated(seat.epoch, seat.term, microbatch, seat.stage))

    def send_input_grad(self, task: Task) -> Send:
        upstream = task.path[self._seat.stage - 1]
        message = Backward(self._seat.epoch, task.microbatch, task.path, task.need)
        return Send(upstream, message, InputGrad(task.microbatch))
