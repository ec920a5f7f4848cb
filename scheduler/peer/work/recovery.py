"""The recovery of what other peers have lost, and the help to neighbours who recover.

Rules:
- Who owns a microbatch and lacks a frame asks its neighbours for it, or gives it up: the trainer
  may let others own it from then on.
- A neighbour gives what it retains, now or as soon as it is computed, or says that it will not.
  Only replicas that the trainer vouches for get anything, and each frame a bounded number of times.
"""

from __future__ import annotations

from swarmrt.ids import MicrobatchId, PeerId, SeatId
from swarmrt.messages import FailedIn, FrameKind, GetFrame, NoFrame, Recover, Released
from swarmrt.scheduler.instructions import Instruction, KeepInput, Send
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.updating.strategy import Versions
from swarmrt.scheduler.peer.work.backwards import Backwards
from swarmrt.scheduler.peer.work.computing import Computing
from swarmrt.scheduler.peer.work.forwards import Forwards
from swarmrt.scheduler.peer.work.outputs import Outputs
from swarmrt.scheduler.peer.work.task import Status, Task

MAX_EARLY_SENDERS, MAX_EARLY_OF_ONE = 64, 64  # requests that wait for the trainer's word
MAX_GIVEN = 16  # times that one asks for one frame: as often as its owner is told, which is late


class Recovery:
    def __init__(
        self,
        seat: Seat,
        versions: Versions,
        computing: Computing,
        outputs: Outputs,
        forwards: Forwards,
        backwards: Backwards,
    ) -> None:
        self._seat, self._computing, self._tasks = seat, computing, computing.tasks
        self._versions, self._accumulators = versions, versions.accumulators
        self._outputs, self._forwards, self._backwards = outputs, forwards, backwards
        self._early: dict[SeatId, dict[GetFrame, None]] = {}  # of whom nobody vouches for yet

    # ------------------------------------------------------------------ its own

    def recover(self, message: Recover) -> list[Instruction]:
        """Ask for what this peer lacks of a microbatch that it owns now."""
        microbatch, seat = message.microbatch, self._seat
        if message.epoch != seat.epoch or not seat.is_serving:
            return []
        if not self._versions.is_open(microbatch):
            return []
        if microbatch in self._accumulators.record:
            return [self._backwards.receipt(microbatch)]
        if microbatch in self._computing.given_up:
            return self._give_up_again(microbatch)
        task = self._tasks.get(microbatch)
        if task is None:
            runs_on = self._versions.runs_on(microbatch)
            task = self._tasks.add(Task(microbatch, runs_on))
        if not seat.is_last:
            task.giver_named(message.path[seat.stage + 1])
        is_coming = self._computing.is_accumulated(microbatch)
        if is_coming or task.backward in (Status.QUEUED, Status.RUNNING):
            return []
        task.owned_anew(message, is_last=seat.is_last)
        instructions = self._versions.owned_anew(microbatch)
        if task.forward is Status.AWAITED:
            instructions += self._get_input(task)
        if not seat.is_last and not task.has_gradient:
            instructions.append(self._ask(task, "gradient", task.path[seat.stage + 1]))
        run = self._backwards.run_or_answer(task)
        return [*instructions, *run, *self._computing.compute()]

    def _get_input(self, task: Task) -> list[Instruction]:
        if self._seat.is_first:  # it came with the message
            task.input_came(self._seat.settings.trainer)
            self._tasks.queue("forward", task)
            return [KeepInput(task.microbatch)]
        return [self._ask(task, "output", task.path[self._seat.stage - 1])]

    def _ask(self, task: Task, kind: FrameKind, owner: SeatId) -> Send:
        task.asked_for(owner, kind)
        return Send(owner, GetFrame(self._seat.epoch, task.microbatch, kind))

    def no_frame(self, sender: PeerId, message: NoFrame) -> list[Instruction]:
        task = self._tasks.get(message.microbatch)
        is_void = message.epoch != self._seat.epoch
        if task is None or task.asked.get(message.kind) != sender or is_void:
            return []
        return self._give_up(task, f"{sender} does not retain its {message.kind} any more")

    def send_failed(self, to: SeatId, message: GetFrame) -> list[Instruction]:
        task = self._tasks.get(message.microbatch)
        if task is None or task.asked.get(message.kind) != to:
            return []
        return self._give_up(task, f"{to}, who has a frame of it, cannot be reached")

    def go_on_without(self, peer: SeatId, now: float) -> list[Instruction]:
        """Push again what it had been given; release what only it could have sent."""
        instructions: list[Instruction] = []
        for task in self._tasks:
            if peer in task.asked.values():
                instructions += self._give_up(task, f"{peer}, who has a frame of it, is gone")
            elif task.pushed_to == peer and task.is_wanted and task.has_output:
                instructions += self._outputs.push(task, now)
        return instructions

    def could_not_be_computed(
        self, task: Task, what: FailedIn, reason: str, not_finite: bool
    ) -> list[Instruction]:
        """Leave to others what is not accumulated. Nothing of the task is left."""
        if task.microbatch not in self._accumulators.record:
            self._computing.given_up.add(task.microbatch)
        return [
            self._outputs.drop(task),
            self._released(task.microbatch, reason, what, not_finite),
        ]

    def _give_up(self, task: Task, reason: str) -> list[Instruction]:
        """Leave it to somebody else: it is not accumulated, and will not be."""
        is_coming = self._computing.is_accumulated(task.microbatch)
        if is_coming or task.backward in (Status.RUNNING, Status.DONE):
            return []
        self._computing.given_up.add(task.microbatch)
        return [self._outputs.drop(task), self._released(task.microbatch, reason)]

    def _give_up_again(self, microbatch: MicrobatchId) -> list[Instruction]:
        """Say it once more: the trainer may not have heard of it. A claim that is under way says
        more, until it is answered: what is granted then may lack this stage."""
        task = self._tasks.get(microbatch)
        if self._seat.is_last and task is not None and not task.granted:
            return []
        return [self._released(microbatch, "it was given up before")]

    def _released(
        self,
        microbatch: MicrobatchId,
        reason: str,
        failed: FailedIn = "",
        not_finite: bool = False,
    ) -> Send:
        seat = self._seat
        why = (reason, failed, not_finite)
        return seat.to_trainer(Released(seat.epoch, seat.term, microbatch, *why))

    # ------------------------------------------------------------------ its neighbours'

    def give_frame(self, sender: PeerId, message: GetFrame) -> list[Instruction]:
        """Let a new owner next to this stage recover from what is retained here."""
        if message.epoch != self._seat.epoch or not self._seat.is_serving:
            return []
        after, before = self._outputs.next, self._forwards.before
        if sender not in (after if message.kind == "output" else before):
            self._keep_early(sender, message)
            return []
        task = self._tasks.get(message.microbatch)
        given = self._frame_for(sender, message.kind, task) if task is not None else None
        if given is None:
            return [Send(sender, NoFrame(self._seat.epoch, message.microbatch, message.kind))]
        return given

    def _keep_early(self, sender: PeerId, message: GetFrame) -> None:
        """Keep a request for a microbatch of whose standing the trainer's word is still on its
        way."""
        asked = self._early.setdefault(sender, {})
        if len(self._early) > MAX_EARLY_SENDERS:
            del self._early[sender]
        elif len(asked) < MAX_EARLY_OF_ONE:
            asked[message] = None

    def vouched(self, peer: SeatId) -> list[Instruction]:
        """Give a peer what it has asked for, now that the trainer's word on it has come."""
        early = self._early.pop(peer, ())
        return [instruction for ask in early for instruction in self.give_frame(peer, ask)]

    def forget_early(self) -> None:
        self._early.clear()

    def _frame_for(self, sender: PeerId, kind: FrameKind, task: Task) -> list[Instruction] | None:
        """Return the frame; None if there is none for it, or it has been given too often."""
        if task.count_given(sender, kind) > MAX_GIVEN:
            return None
        if kind == "output":
            return self._output_for(sender, task)
        return self._gradient_for(sender, task)

    def _output_for(self, sender: PeerId, task: Task) -> list[Instruction] | None:
        """Return the output, now or as soon as it is there; None if it will not be."""
        if task.has_output:
            return [self._outputs.send_output(sender, task)]
        if task.forward is Status.DONE or self._seat.is_last:
            return None
        task.wish_came(sender)
        return []

    def _gradient_for(self, sender: PeerId, task: Task) -> list[Instruction] | None:
        if self._seat.is_first or not task.path:
            return None
        task.send_input_grad_to(sender, self._seat.stage - 1)
        if task.backward is not Status.DONE:
            is_spent = task.microbatch in self._accumulators.record and not task.has_gradient
            is_coming = task.backward is not Status.AWAITED or not is_spent
            return self._backwards.run_or_answer(task) if is_coming else None
        return [self._backwards.send_input_grad(task)] if task.has_input_grad else None
