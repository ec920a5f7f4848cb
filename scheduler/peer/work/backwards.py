"""A peer's way back: running backward once it is granted, accumulating, and passing it on.

Rules:
- Gradients are taken from whoever has this stage's output, once it was granted, or is named by the
  trainer as next. The path of that grant, or of the trainer's own word, is the one that counts.
- What comes again is answered from the record, and accumulates nothing.
- The receipt goes to the trainer, the input's gradient to the stage before, if one needs it. Where
  the weights' gradients are left for later, the receipt waits for them and the gradient does not.
"""

from __future__ import annotations

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Accumulated, Backward, Granted
from swarmrt.scheduler.events import BackwardDone, WeightGradientsDone
from swarmrt.scheduler.instructions import InputGrad, Instruction, KeepGradient, Send
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.strategy import Versions
from swarmrt.scheduler.peer.work.computing import Computing
from swarmrt.scheduler.peer.work.forwards import Forwards
from swarmrt.scheduler.peer.work.outputs import Outputs
from swarmrt.scheduler.peer.work.task import Status, Task
from swarmrt.scheduler.seals import is_granted


class Backwards:
    def __init__(
        self,
        seat: Seat,
        versions: Versions,
        computing: Computing,
        outputs: Outputs,
        forwards: Forwards,
    ) -> None:
        self._seat, self._computing, self._tasks = seat, computing, computing.tasks
        self._versions, self._accumulators = versions, versions.accumulators
        self._outputs, self._forwards = outputs, forwards

    def granted(self, message: Granted, now: float) -> list[Instruction]:
        task = self._tasks.get(message.microbatch)
        if task is None or message.epoch != self._seat.epoch or not self._seat.is_last:
            return []
        if not task.granted:
            self._outputs.claim_answered(task, now)
        task.backward_granted(message)
        self._computing.granted(message.microbatch, message.need)
        return self.run_or_answer(task)

    def came(self, sender: PeerId, message: Backward, now: float) -> list[Instruction]:
        task = self._tasks.get(message.microbatch)
        if task is None or message.epoch != self._seat.epoch or self._seat.is_last:
            return []
        if self._forwards.blame.bars(sender, now):
            return []
        if is_granted(message, self._seat):
            task.follow(message)
        self._outputs.came_back(task, sender, now)
        self._computing.granted(message.microbatch, task.need)
        is_of_use = task.gradient_came(sender)
        keep: list[Instruction] = [KeepGradient(message.microbatch)] if is_of_use else []
        return keep + self.run_or_answer(task)

    def run_or_answer(self, task: Task) -> list[Instruction]:
        """Run backward, if it has not run; else give what it gave."""
        if task.backward is Status.DONE:
            return self._receipts(task)
        is_granted = self._seat.is_last and task.granted
        may_run = task.has_graph and (task.has_gradient or is_granted)
        if task.backward is not Status.AWAITED or task.forward is not Status.DONE or not may_run:
            return []
        if task.microbatch in self._accumulators.record and not task.passes_on(self._seat.stage):
            return self._receipts(task)
        self._tasks.queue("backward", task)
        return self._computing.compute()

    def done(self, event: BackwardDone) -> list[Instruction]:
        adds = self._accumulators.is_adding(event.microbatch)
        task, void = self._computing.backward_finished(event)
        if task is None:
            return [*void, *self._computing.compute()]
        self._forwards.blame.worked(task.gradient_of)
        task.backward_computed(event.frame_bytes, is_first=self._seat.is_first)
        if adds:
            void = self._versions.added(event.microbatch)
        given = [*void, *self._receipts(task)]  # before the frame may be dropped
        kept = self._outputs.retention.keep_within(task)
        return [*given, *kept, *self._computing.compute()]

    def weights_done(self, event: WeightGradientsDone) -> list[Instruction]:
        """Tell the trainer that the whole gradient is accumulated."""
        task, void = self._computing.weight_gradients_finished(event)
        if task is None:
            return [*void, *self._computing.compute()]
        void = self._versions.added(event.microbatch)
        return [*void, self.receipt(event.microbatch), *self._computing.compute()]

    def _receipts(self, task: Task) -> list[Instruction]:
        """Give the previous stage its gradient, and tell the trainer what is accumulated."""
        instructions: list[Instruction] = []
        if task.passes_on(self._seat.stage) and task.has_input_grad:
            instructions = [self.send_input_grad(task)]
        if task.microbatch in self._accumulators.record:
            instructions.append(self.receipt(task.microbatch))
        return instructions

    def receipt(self, microbatch: MicrobatchId) -> Send:
        seat = self._seat
        return seat.to_trainer(Accumulated(seat.epoch, seat.term, microbatch, seat.stage))

    def send_input_grad(self, task: Task) -> Send:
        upstream = task.path[self._seat.stage - 1]
        message = Backward(self._seat.epoch, task.microbatch, task.path, task.need, task.seals)
        return Send(upstream, message, InputGrad(task.microbatch))
