"""A peer's way forward: taking a microbatch, and handing its output on until somebody has it.

Rules:
- Inputs are taken from replicas that the trainer vouches for, and outputs go to such.
- A forward has no side effects, so a refused, failed, lost or late push goes to another replica.
- What is awaited is asked for again when it is overdue.
"""

from __future__ import annotations

import random

from swarmrt.ids import MicrobatchId, PeerId
from swarmrt.messages import Accepted, Busy, Claim, Evaluated, Forward, Stale
from swarmrt.scheduler.events import ForwardDone
from swarmrt.scheduler.instructions import (
    Forget,
    Instruction,
    KeepInput,
    Output,
    Send,
    StartDeadline,
)
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.work.blame import Blame
from swarmrt.scheduler.peer.work.computing import Computing
from swarmrt.scheduler.peer.work.retention import Retention
from swarmrt.scheduler.peer.work.task import Status, Task
from swarmrt.scheduler.timing.agenda import Agenda
from swarmrt.scheduler.timing.estimate import Estimate, Estimates
from swarmrt.scheduler.wiring.replicas import Replicas

REWIRE_S = 0.25  # before asking again when no replica of the next stage can take work
ANSWER_S = 5.0  # for the first answers, before it is known how long they take
SLACK = 3  # a push repeated in vain costs a forward; whoever is dead is found out sooner


class Forwards:
    def __init__(self, seat: Seat, computing: Computing) -> None:
        self.retention = Retention(seat.settings.retain_bytes)
        self.agenda: Agenda[MicrobatchId] = Agenda("overdue")
        self.before: set[PeerId] = set()  # replicas of the stage before, by the trainer's word
        ties = random.Random(f"{seat.settings.seed} {seat.me}")  # senders do not all choose alike
        self.next = Replicas(ties, seat.settings.record_ttl_s)
        self.blame = Blame()
        self._seat, self._computing, self._tasks = seat, computing, computing.tasks
        self._stranded: dict[MicrobatchId, None] = {}  # outputs that no replica could take
        self._accept_time = Estimates()
        self._claim_time = Estimate()

    def clear(self) -> None:
        """Void all tasks."""
        self.retention.clear()
        self.agenda.clear()
        self._stranded.clear()

    def forget_neighbours(self) -> None:
        """Forget what the trainer has said of them, which is of an earlier admission."""
        self.before.clear()
        self.next.clear()
        self.blame.clear()

    def drop(self, task: Task) -> Forget:
        """Drop it: it is not needed here any more."""
        self._tasks.drop(task)
        self._not_awaited(task)
        self.retention.forget(task.microbatch)
        self.agenda.cancel(task.microbatch)
        return Forget(task.microbatch)

    # ------------------------------------------------------------------ taking it

    def came(self, sender: PeerId, message: Forward, now: float) -> list[Instruction]:
        microbatch, seat = message.work.microbatch, self._seat
        task = self._tasks.get(microbatch)
        if message.epoch != seat.epoch or not seat.is_serving:
            is_old = message.epoch < seat.epoch
            return [Send(sender, Stale(message.work) if is_old else self._load(Busy, message))]
        if microbatch.step < seat.version or seat.skips(microbatch):
            return [Send(sender, Stale(message.work))]
        if not self._is_known(sender) or self.blame.bars(sender, now):
            return [Send(sender, self._load(Busy, message))]
        if task is not None:
            if self._would_forget(task, message):
                return [Send(sender, self._load(Busy, message))]
            accepted = self._load(Accepted, message)
            return [Send(sender, accepted), *self._again(task, sender, message, now)]
        newest = seat.version if microbatch.held_out else seat.newest_step
        is_far = microbatch.step > newest + 1
        if seat.is_draining or is_far or self._computing.is_full:
            return [Send(sender, self._load(Busy, message))]
        accepted = self._load(Accepted, message)
        task = self._tasks.add(Task.of(message.work, message.route, sender))
        self._tasks.queue("forward", task)
        return [KeepInput(microbatch), Send(sender, accepted), *self._computing.compute()]

    def _is_known(self, sender: PeerId) -> bool:
        """Return whether the trainer vouches for it. Who is refused before its word is here asks
        again."""
        return self._seat.is_first or sender in self.before

    def _load(self, kind: type[Accepted] | type[Busy], message: Forward) -> Accepted | Busy:
        return kind(message.work, self._computing.service_s, self._computing.backlog_s)

    def _again(self, task: Task, sender: PeerId, message: Forward, now: float) -> list[Instruction]:
        """Answer another attempt of a microbatch that is here; or give the frame that was asked
        for."""
        was_asked = task.frame_came("output")
        is_new = task.is_new(message.work.attempt, message.route)
        if is_new:
            self._came_again(task)
            task.tried_again(message.work.attempt, message.route, was_asked=was_asked)
        has_frames = self._seat.is_last or task.has_output
        is_spent = task.backward is Status.DONE and not (task.has_input_grad or self._seat.is_first)
        if task.forward is Status.AWAITED or (is_new and task.is_idle and is_spent):
            return self._forward_from(task, sender)
        if not is_new or task.forward is not Status.DONE or not task.onward:
            return []
        if not has_frames:
            return self._forward_from(task, sender) if task.is_idle else []
        return self._go_on(task, now)

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

    def _came_again(self, task: Task) -> None:
        """Take note that another attempt comes: of what was handed on, and taken, nothing has come
        back."""
        if task.accepted and task.is_wanted and task.pushed_to is not None:
            self.next.wiring.never_came(task.pushed_to)

    def came_back(self, task: Task, sender: PeerId, now: float) -> None:
        """The gradient of an output: the first sign of whoever it was handed to."""
        if task.is_wanted and task.pushed_to == sender:
            self.next.wiring.came_back(sender, task.pushed_at, now)
        task.came_back()

    def _forward_from(self, task: Task, sender: PeerId) -> list[Instruction]:
        """Compute it from the input that has just come."""
        task.input_came(sender)
        self._tasks.queue("forward", task)
        return [KeepInput(task.microbatch), *self._computing.compute()]

    # ------------------------------------------------------------------ handing it on

    def done(self, event: ForwardDone, now: float) -> list[Instruction]:
        task, void = self._computing.forward_finished(event)
        if task is None:
            return [*void, *self._computing.compute()]
        self.blame.worked(task.input_of)
        task.forward_computed(event, is_last=self._seat.is_last)
        if event.microbatch.held_out and self._seat.is_last:
            evaluated = Evaluated(task.work, self._seat.epoch, event.loss_sum, event.tokens)
            sent = self._seat.to_trainer(evaluated)
            return [sent, self.drop(task), *self._computing.compute()]
        instructions = self._give_output(task)
        if task.onward:
            instructions += self._go_on(task, now)
        if task.has_gradient or (self._seat.is_last and task.granted):
            self._tasks.queue("backward", task)
        kept = self.retention.keep_within(task)
        return [*instructions, *kept, *self._computing.compute()]

    def _go_on(self, task: Task, now: float) -> list[Instruction]:
        return self._claim(task, now) if self._seat.is_last else self.push(task, now)

    def push(self, task: Task, now: float) -> list[Instruction]:
        """Hand the output to a replica of the next stage, or keep it until there is one."""
        task.push(self.next.wiring.choose(now))
        if task.pushed_to is None:
            is_first = not self._stranded and len(self.next.wiring)
            self._stranded[task.microbatch] = None
            return [StartDeadline("rewire", now + REWIRE_S)] if is_first else []
        patience_s = SLACK * self._accept_time.patience_s(task.pushed_to, ANSWER_S, task.retries)
        task.push_began(task.pushed_to, now, patience_s)
        self.agenda.set(task.microbatch, now + patience_s)
        return [self.send_output(task.pushed_to, task)]

    def send_output(self, to: PeerId, task: Task) -> Send:
        task.given_to(to)
        message = Forward(task.work, self._seat.epoch, (*task.route, self._seat.me))
        return Send(to, message, Output(task.microbatch))

    def _give_output(self, task: Task) -> list[Instruction]:
        """Give it to the replica that has asked for it, for recovery."""
        wanted_by = task.take_wish()
        return [self.send_output(wanted_by, task)] if wanted_by is not None else []

    def repush(self, to: PeerId, microbatch: MicrobatchId, now: float) -> list[Instruction]:
        """Try another replica: that one did not take it."""
        task = self._tasks.get(microbatch)
        if task is None or task.pushed_to != to or task.accepted:
            return []
        if task.forward is not Status.DONE or not task.is_wanted:
            return []
        return self.push(task, now) if task.has_output else []

    def refused(self, sender: PeerId, message: Busy, now: float) -> list[Instruction]:
        self.next.refused(sender, message.service_s, now + max(REWIRE_S, message.service_s))
        return self.repush(sender, message.work.microbatch, now)

    def send_failed(self, to: PeerId, message: Forward, now: float) -> list[Instruction]:
        self.next.refused(to, 0.0, now + REWIRE_S)
        return self.repush(to, message.work.microbatch, now)

    def rewire(self, now: float) -> list[Instruction]:
        """Replicas may take work again: push what none could take."""
        stranded, self._stranded = self._stranded, {}
        tasks = [task for mb in stranded if (task := self._tasks.get(mb)) is not None]
        return [
            instruction
            for task in tasks
            if task.pushed_to is None and task.has_output and task.is_wanted
            for instruction in self.push(task, now)
        ]

    def accepted(self, sender: PeerId, message: Accepted, now: float) -> list[Instruction]:
        self.next.wiring.observe(sender, message.service_s, message.backlog_s)
        task = self._tasks.get(message.work.microbatch)
        if task is None:
            return []
        if (answered := task.push_answered(sender)) is not None:
            pushed_at, patience_s = answered  # a late one: too little was expected of its link
            self._accept_time.add_answer(sender, now - pushed_at, patience_s)
        if task.pushed_to != sender or task.accepted:
            return []
        task.taken()
        self.agenda.cancel(task.microbatch)
        if message.work.microbatch.held_out:
            return [self.drop(task)]
        return self.retention.keep_within(task)

    def stale(self, sender: PeerId, microbatch: MicrobatchId) -> list[Instruction]:
        """Drop an attempt. By the trainer's word another route owns it; by a replica's its step is
        over there."""
        task = self._tasks.get(microbatch)
        if task is None or sender not in (self._seat.settings.trainer, task.pushed_to):
            return []
        if task.need or task.granted or task.forward is not Status.DONE:
            return []
        return [self.drop(task), *self._computing.compute()]

    # ------------------------------------------------------------------ claims

    def _claim(self, task: Task, now: float) -> list[Instruction]:
        patience_s = self._claim_time.patience_s(ANSWER_S, task.retries)
        task.claim_began(now, patience_s)
        self.agenda.set(task.microbatch, now + patience_s)
        route = (*task.route, self._seat.me)
        claim = Claim(task.work, self._seat.epoch, route, task.loss_sum, task.tokens)
        sent: list[Instruction] = [self._seat.to_trainer(claim)]
        if not self._computing.is_brief(self._claim_time.mean_s):
            return sent
        self._computing.awaited = task.microbatch
        return [*sent, StartDeadline("grant", now + self._claim_time.deadline_s)]

    def claim_answered(self, task: Task, now: float) -> None:
        self.agenda.cancel(task.microbatch)
        self._claim_time.add_answer(now - task.claimed_at, task.claim_patience_s)
        self._not_awaited(task)

    def grant_is_late(self) -> list[Instruction]:
        self._computing.awaited = None
        return self._computing.compute()

    def _not_awaited(self, task: Task) -> None:
        if self._computing.awaited == task.microbatch:
            self._computing.awaited = None

    def overdue(self, now: float) -> list[Instruction]:
        """Pushes and claims that were not answered."""
        return [i for microbatch in self.agenda.due(now) for i in self._ask_again(microbatch, now)]

    def _ask_again(self, microbatch: MicrobatchId, now: float) -> list[Instruction]:
        task = self._tasks.get(microbatch)
        if task is None or task.forward is not Status.DONE or not task.onward:
            return []
        task.overdue()
        if self._seat.is_last:
            return self._claim(task, now) if not task.granted else []
        late = task.pushed_to
        if late is None or task.accepted:
            return []
        patience_s = self._accept_time.patience_s(late, ANSWER_S)
        self.next.refused(late, 0.0, now + patience_s)
        return self.repush(late, microbatch, now)
