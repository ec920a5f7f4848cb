"""A seat's outputs: they are handed on until somebody has them, or claimed at the last stage.

Rules:
- Outputs go to replicas that the trainer vouches for.
- A forward has no side effects, so a refused, failed, lost or late push goes to another replica.
- What is awaited is asked for again when it is overdue.
"""

from __future__ import annotations

import random

from swarmrt.ids import MicrobatchId, PeerId, SeatId
from swarmrt.messages import Accepted, Busy, Claim, Forward
from swarmrt.scheduler.instructions import Forget, Instruction, Output, Send, StartDeadline
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.work.computing import Computing
from swarmrt.scheduler.peer.work.retention import Retention
from swarmrt.scheduler.peer.work.task import Status, Task
from swarmrt.scheduler.timing.agenda import Agenda
from swarmrt.scheduler.timing.estimate import Estimate, Estimates
from swarmrt.scheduler.timing.times import ANSWER_S, REWIRE_S
from swarmrt.scheduler.wiring.replicas import Replicas

SLACK = 3  # a push repeated in vain costs a forward; whoever is dead is found out sooner


class Outputs:
    def __init__(self, seat: Seat, computing: Computing) -> None:
        self.retention = Retention(seat.settings.retain_bytes)
        self.agenda: Agenda[MicrobatchId] = Agenda("overdue")
        ties = random.Random(f"{seat.settings.seed} {seat.me}")  # senders do not all choose alike
        self.next = Replicas(ties, seat.settings.record_ttl_s, seat.settings.wiring)
        self._seat, self._computing, self._tasks = seat, computing, computing.tasks
        self._stranded: dict[MicrobatchId, None] = {}  # outputs that no replica could take
        self._accept_time = Estimates()
        self._claim_time = Estimate()

    def clear(self) -> None:
        """Void all tasks."""
        self.retention.clear()
        self.agenda.clear()
        self._stranded.clear()
        self.next.wiring.clear()

    def drop(self, task: Task) -> Forget:
        """Drop it: it is not needed here any more."""
        self._tasks.drop(task)
        self._not_awaited(task)
        self.retention.forget(task.microbatch)
        self.agenda.cancel(task.microbatch)
        self.next.wiring.over(task.microbatch)
        return Forget(task.microbatch)

    # ------------------------------------------------------------------ handing them on

    def go_on(self, task: Task, now: float) -> list[Instruction]:
        """Hand the output of a forward to the next stage, or claim the microbatch."""
        return self._claim(task, now) if self._seat.is_last else self.push(task, now)

    def push(self, task: Task, now: float) -> list[Instruction]:
        """Hand the output to a replica of the next stage, or keep it until there is one."""
        task.push(self.next.wiring.choose(now, task.microbatch))
        if task.pushed_to is None:
            is_first = not self._stranded and len(self.next.wiring)
            self._stranded[task.microbatch] = None
            return [StartDeadline("rewire", now + REWIRE_S)] if is_first else []
        patience_s = SLACK * self._accept_time.patience_s(task.pushed_to, ANSWER_S, task.retries)
        task.push_began(task.pushed_to, now, patience_s)
        self.agenda.set(task.microbatch, now + patience_s)
        return [self.send_output(task.pushed_to, task)]

    def send_output(self, to: SeatId, task: Task) -> Send:
        task.given_to(to)
        message = Forward(task.work, self._seat.epoch, (*task.route, self._seat.me))
        return Send(to, message, Output(task.microbatch))

    def give(self, task: Task) -> list[Instruction]:
        """Give it to the replica that has asked for it, for recovery."""
        wanted_by = task.take_wish()
        return [self.send_output(wanted_by, task)] if wanted_by is not None else []

    def repush(self, to: SeatId, microbatch: MicrobatchId, now: float) -> list[Instruction]:
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

    def send_failed(self, to: SeatId, message: Forward, now: float) -> list[Instruction]:
        self.next.refused(to, 0.0, now + REWIRE_S)
        return self.repush(to, message.work.microbatch, now)

    def rewire(self, now: float) -> list[Instruction]:
        """Push what no replica could take: one may take work again. What was given to them may have
        come back another way: who has no room says so."""
        stranded, self._stranded = self._stranded, {}
        if stranded:
            self.next.wiring.clear()
        tasks = [task for mb in stranded if (task := self._tasks.get(mb)) is not None]
        return [
            instruction
            for task in tasks
            if task.pushed_to is None and task.has_output and task.is_wanted
            for instruction in self.push(task, now)
        ]

    def accepted(self, sender: PeerId, message: Accepted, now: float) -> list[Instruction]:
        """Wait no more for the answer of whom an output was pushed to."""
        self.next.wiring.estimates.observe(sender, message.service_s, message.backlog_s)
        task = self._tasks.get(message.work.microbatch)
        if task is None:
            return []
        if (answered := task.push_answered(sender)) is not None:
            pushed_at, patience_s = answered  # a late one: too little was expected of its link
            self._accept_time.add_answer(sender, now - pushed_at, patience_s)
            self.next.wiring.estimates.answered(sender, task.output_bytes, pushed_at, now)
        if task.pushed_to != sender or task.accepted:
            return []
        task.taken()
        self.agenda.cancel(task.microbatch)
        if message.work.microbatch.held_out:
            return [self.drop(task)]
        return self.retention.keep_within(task)

    def never_came_back(self, task: Task) -> None:
        """Take note that another attempt comes: of what was handed on, and taken, nothing has come
        back."""
        if task.accepted and task.is_wanted and task.pushed_to is not None:
            self.next.wiring.estimates.never_came(task.pushed_to)

    def came_back(self, task: Task, sender: PeerId, now: float) -> None:
        """Take note of the gradient of an output, the first sign of whoever it was handed to."""
        if task.is_wanted and task.pushed_to == sender:
            self.next.wiring.estimates.came_back(sender, task.pushed_at, now)
            self.next.wiring.over(task.microbatch)
        task.came_back()

    # ------------------------------------------------------------------ claims

    def _claim(self, task: Task, now: float) -> list[Instruction]:
        patience_s = self._claim_time.patience_s(ANSWER_S, task.retries)
        task.claim_began(now, patience_s)
        self.agenda.set(task.microbatch, now + patience_s)
        route = (*task.route, self._seat.me)
        claim = Claim(task.work, self._seat.epoch, route, task.loss_sum, task.tokens)
        sent: list[Instruction] = [self._seat.to_trainer(claim)]
        if not self._computing.pace.is_brief(self._claim_time.mean_s):
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

    # ------------------------------------------------------------------ what is overdue

    def overdue(self, now: float) -> list[Instruction]:
        """Repeat the pushes and claims that were not answered."""
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
        self.next.wiring.estimates.unanswered(late, task.output_bytes, now - task.pushed_at)
        self.next.refused(late, 0.0, now + patience_s)
        return self.repush(late, microbatch, now)
