"""What a peer believes: who may say a message to it, and what may be true in its run.

Rules:
- The trainer's word counts, and that of whom it has named, or of whom was asked.
- A value must be possible: a microbatch of the run, a route and a path through its stages, a time.
- What is not believed is dropped before anything is made of it, and counted.

    Forward             at stage 0 the trainer; else a replica of the stage before
    Backward            who has this stage's output, or was named as the next on the path
    Accepted Busy       whom the output was sent to
    NoFrame Stale       who was asked (`recovery`, `forwards`)
    GetFrame            replicas of the stages before and after (`recovery`)
    Part                members of the round (`reducing`)
    Hail … Finish       the trainer
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import (
    Accepted,
    Admit,
    Apply,
    Backward,
    Busy,
    Drain,
    Forward,
    GetFrame,
    Granted,
    Hail,
    Message,
    NoFrame,
    Part,
    Prepare,
    Recover,
    Stale,
    Standing,
)
from swarmrt.scheduler.estimate import is_duration
from swarmrt.scheduler.reducing import MAX_BEHIND
from swarmrt.scheduler.seat import Seat
from swarmrt.scheduler.tasks import Tasks

MAX_ATTEMPTS = 1 << 20  # of one microbatch; a trainer makes more only if nothing ever comes back
MAX_NAME = 128  # characters of a peer's id, which has 46 or 52
MAX_NUMBER = 1 << 62  # of steps, epochs, rounds and tokens: whatever is counted stays sendable


class Believing:
    def __init__(self, seat: Seat, tasks: Tasks) -> None:
        self.refused: Counter[str] = Counter()  # by kind of message
        self._seat, self._tasks = seat, tasks

    def believes(self, sender: PeerId, message: Message) -> bool:
        believed = self._may_say(sender, message) and self._is_possible(sender, message)
        if not believed:
            self.refused[type(message).__name__] += 1
        return believed

    # ------------------------------------------------------------------ who may say it

    def _may_say(self, sender: PeerId, message: Message) -> bool:
        """Whether this sender may. Where it depends on more, the part that it goes to decides."""
        is_trainer = sender == self._seat.settings.trainer
        match message:
            case Forward():
                return is_trainer == self._seat.is_first
            case Backward(microbatch=microbatch):
                return not is_trainer and self._is_heir(sender, microbatch)
            case Accepted(work=work) | Busy(work=work):
                return not is_trainer and self._is_heir(sender, work.microbatch)
            case GetFrame() | NoFrame() | Part():
                return not is_trainer
            case Stale():
                return True
        return is_trainer

    def _is_heir(self, sender: PeerId, microbatch: MicrobatchId) -> bool:
        task = self._tasks.get(microbatch)
        return task is not None and sender in task.heirs

    # ------------------------------------------------------------------ what may be true

    def _is_possible(self, sender: PeerId, message: Message) -> bool:
        seat = self._seat
        match message:
            case Forward(work, epoch, route):
                return self._is_work(work) and _is_number(epoch) and self._is_route(route, sender)
            case Backward(epoch, microbatch, path, need):
                follows = self._is_path(path, need) and path[seat.stage + 1 :][:1] == (sender,)
                return follows and _is_number(epoch) and self._is_trained(microbatch)
            case Accepted(work, service_s, backlog_s) | Busy(work, service_s, backlog_s):
                return self._is_work(work) and is_duration(service_s) and is_duration(backlog_s)
            case Stale(work):
                return self._is_work(work)
            case GetFrame(epoch, microbatch) | NoFrame(epoch, microbatch):
                return _is_number(epoch) and self._is_trained(microbatch)
            case Part(epoch, step, number, index):
                return all(map(_is_number, (epoch, step, number, index)))
            case Granted(epoch, microbatch, path, need) | Recover(epoch, microbatch, path, need):
                is_ours = _is_number(epoch) and self._is_trained(microbatch)
                return is_ours and self._is_path(path, need)
            case Hail(epoch) | Drain(epoch):
                return _is_number(epoch)
            case Admit(epoch, term, version, _, _, norm, donors):
                counts = all(map(_is_number, (epoch, term, version)))
                return counts and _is_norm(norm) and all(map(_is_name, donors))
            case Prepare():
                return self._is_round(message)
            case Apply(epoch, step, number, norm):
                counts = all(map(_is_number, (epoch, number))) and self._is_near(step)
                return counts and _is_norm(norm)
            case Standing(epoch, stage, peer):
                return _is_number(epoch) and _is_name(peer) and 0 <= stage < self._num_stages
        return True

    def _is_round(self, prepare: Prepare) -> bool:
        """A roster has everybody once, and every microbatch at most once."""
        peers = [peer for peer, _ in prepare.roster]
        indices = [index for _, its_indices in prepare.roster for index in its_indices]
        counted = len(set(peers)) == len(peers) > 0 and len(set(indices)) == len(indices)
        named = all(map(_is_name, (*peers, *prepare.listeners)))
        within = all(0 <= index < self._seat.settings.microbatches for index in indices)
        numbers = all(map(_is_number, (prepare.epoch, prepare.round, prepare.tokens)))
        apart = not set(peers) & set(prepare.listeners)
        is_near = self._is_near(prepare.step)
        return counted and named and within and numbers and apart and is_near and prepare.tokens > 0

    def _is_near(self, step: int) -> bool:
        """What is kept of steps that are to come is bounded."""
        return 0 <= step <= self._seat.version + MAX_BEHIND + 1

    def _is_work(self, work: Work) -> bool:
        return 0 <= work.attempt <= MAX_ATTEMPTS and self._is_microbatch(work.microbatch)

    def _is_microbatch(self, microbatch: MicrobatchId) -> bool:
        settings = self._seat.settings
        held_out = microbatch.held_out
        number = settings.eval_microbatches if held_out else settings.microbatches
        return 0 <= microbatch.index < number and _is_number(microbatch.step)

    def _is_trained(self, microbatch: MicrobatchId) -> bool:
        """A microbatch that has a gradient."""
        return not microbatch.held_out and self._is_microbatch(microbatch)

    def _is_route(self, route: Sequence[PeerId], sender: PeerId) -> bool:
        """The peers of all stages before this one, the sender last."""
        if len(route) != self._seat.stage or not all(map(_is_name, route)):
            return False
        return not route or route[-1] == sender

    def _is_path(self, path: Sequence[PeerId], need: Sequence[int]) -> bool:
        """A peer or nobody for each stage, this one for its own; and stages, each once."""
        named = len(path) == self._num_stages and all(len(peer) <= MAX_NAME for peer in path)
        stages = range(self._num_stages)
        in_order = len(need) <= len(stages) and tuple(need) == tuple(sorted(set(need)))
        sound = in_order and all(stage in stages for stage in need)
        return named and sound and path[self._seat.stage] == self._seat.me

    @property
    def _num_stages(self) -> int:
        return self._seat.settings.num_stages


def _is_number(value: int) -> bool:
    return 0 <= value <= MAX_NUMBER


def _is_norm(value: float) -> bool:
    return 0 <= value < math.inf


def _is_name(peer: PeerId) -> bool:
    return 0 < len(peer) <= MAX_NAME
