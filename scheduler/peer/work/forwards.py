"""A seat's forwards: taking a microbatch, computing it, and having its output handed on.

Rules:
- Inputs are taken from replicas that the trainer vouches for.
- Another attempt of a microbatch that is here is answered from what is kept of it.
"""

from __future__ import annotations

from swarmrt.ids import MicrobatchId, PeerId, SeatId, Work
from swarmrt.messages import Accepted, Busy, Evaluated, Forward, Stale
from swarmrt.scheduler.events import ForwardDone
from swarmrt.scheduler.instructions import Instruction, KeepInput, Send
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.strategy import Versions
from swarmrt.scheduler.peer.work.blame import Blame
from swarmrt.scheduler.peer.work.computing import Computing
from swarmrt.scheduler.peer.work.outputs import Outputs
from swarmrt.scheduler.peer.work.task import Status, Task


class Forwards:
    def __init__(
        self, seat: Seat, versions: Versions, computing: Computing, outputs: Outputs
    ) -> None:
        self.before: set[SeatId] = set()  # replicas of the stage before, by the trainer's word
        self.blame = Blame()
        self._seat, self._computing, self._tasks = seat, computing, computing.tasks
        self._versions, self._outputs = versions, outputs

    # ------------------------------------------------------------------ taking it

    def came(self, sender: PeerId, message: Forward, now: float) -> list[Instruction]:
        """Take a microbatch, or say why not."""
        microbatch, seat = message.work.microbatch, self._seat
        task = self._tasks.get(microbatch)
        if message.epoch != seat.epoch or not seat.is_serving:
            is_old = message.epoch < seat.epoch
            return [Send(sender, Stale(message.work) if is_old else self._load(Busy, message))]
        if self._versions.is_over(microbatch):
            return [Send(sender, Stale(message.work))]
        if not self._is_known(sender) or self.blame.bars(sender, now):
            return [Send(sender, self._load(Busy, message))]
        if task is not None:
            if self._would_forget(task, message):
                return [Send(sender, self._load(Busy, message))]
            accepted = self._load(Accepted, message)
            return [Send(sender, accepted), *self._again(task, sender, message, now)]
        is_too_early = self._versions.is_too_early(microbatch)
        if seat.is_draining or is_too_early or self._computing.is_full:
            return [Send(sender, self._load(Busy, message))]
        room = self._make_room(message.work)
        if room is None:
            return [Send(sender, self._load(Busy, message))]
        accepted = self._load(Accepted, message)
        runs_on = self._versions.runs_on(microbatch)
        task = self._tasks.add(Task.of(message.work, message.route, sender, runs_on))
        self._tasks.queue("forward", task)
        return [*room, KeepInput(microbatch), Send(sender, accepted), *self._computing.compute()]

    def _make_room(self, work: Work) -> list[Instruction] | None:
        """Return what makes room in the memory for a microbatch; None where there is none.

        Whatever is tried again takes the place of what has waited longest for its gradient: else
        two stages that are full of what the other one refuses would wait for each other.
        """
        if work.microbatch.held_out or self._computing.has_room:
            return []
        longest = next(filter(self._may_go, self._tasks), None) if work.attempt > 1 else None
        return [self._outputs.drop(longest)] if longest is not None else None

    def _may_go(self, task: Task) -> bool:
        """Return whether it waits for a gradient that nobody has promised, or has added before."""
        is_owned = task.need and not self._computing.is_accumulated(task.microbatch)
        return task.waits_for_gradient and not is_owned

    def _is_known(self, sender: PeerId) -> bool:
        """Return whether the trainer vouches for it. Who is refused before its word is here asks
        again."""
        return self._seat.is_first or sender in self.before

    def _load(self, kind: type[Accepted] | type[Busy], message: Forward) -> Accepted | Busy:
        pace = self._computing.pace
        return kind(message.work, pace.service_s, pace.backlog_s)

    def _again(self, task: Task, sender: PeerId, message: Forward, now: float) -> list[Instruction]:
        """Answer another attempt of a microbatch that is here; or give the frame that was asked
        for."""
        was_asked = task.frame_came("output")
        is_new = task.is_new(message.work.attempt, message.route)
        if is_new:
            self._outputs.never_came_back(task)
            task.tried_again(message.work.attempt, message.route, was_asked=was_asked)
        has_frames = self._seat.is_last or task.has_output
        is_spent = task.backward is Status.DONE and not (task.has_input_grad or self._seat.is_first)
        if task.forward is Status.AWAITED or (is_new and task.is_idle and is_spent):
            return self._forward_from(task, sender)
        if not is_new or task.forward is not Status.DONE or not task.onward:
            return []
        if not has_frames:
            return self._forward_from(task, sender) if task.is_idle else []
        return self._outputs.go_on(task, now)

    def _would_forget(self, task: Task, message: Forward) -> bool:
        """Return whether nothing would come of another attempt: its frames are gone, and what is
        computed of it now does not bring them back."""
        is_new = task.is_new(message.work.attempt, message.route)
        has_frames = self._seat.is_last or task.has_output
        was_asked = "output" in task.asked
        return (
            is_new
            and not was_asked
            and task.forward is Status.DONE
            and not has_frames
            and not task.is_idle
        )

    def _forward_from(self, task: Task, sender: PeerId) -> list[Instruction]:
        """Compute it from the input that has just come."""
        task.input_came(sender)
        self._tasks.queue("forward", task)
        return [KeepInput(task.microbatch), *self._computing.compute()]

    # ------------------------------------------------------------------ what becomes of it

    def done(self, event: ForwardDone, now: float) -> list[Instruction]:
        task, void = self._computing.forward_finished(event)
        if task is None:
            return [*void, *self._computing.compute()]
        self.blame.worked(task.input_of)
        task.forward_computed(event, is_last=self._seat.is_last)
        if event.microbatch.held_out and self._seat.is_last:
            evaluated = Evaluated(task.work, self._seat.epoch, event.loss_sum, event.tokens)
            sent = self._seat.to_trainer(evaluated)
            return [sent, self._outputs.drop(task), *self._computing.compute()]
        instructions = self._outputs.give(task)
        if task.onward:
            instructions += self._outputs.go_on(task, now)
        if task.has_gradient or (self._seat.is_last and task.granted):
            self._tasks.queue("backward", task)
        kept = self._outputs.retention.keep_within(task)
        return [*instructions, *kept, *self._computing.compute()]

    def stale(self, sender: PeerId, microbatch: MicrobatchId) -> list[Instruction]:
        """Drop an attempt. By the trainer's word another route owns it; by a replica's its step is
        over there."""
        task = self._tasks.get(microbatch)
        if task is None or sender not in (self._seat.settings.trainer, task.pushed_to):
            return []
        if task.need or task.granted or task.forward is not Status.DONE:
            return []
        return [self._outputs.drop(task), *self._computing.compute()]
