"""The beliefs of a peer: who may say a message to it, and what may be true in its run.

Rules:
- The trainer's word counts, and that of whom it has named, or of whom was asked.
- A value must be possible: a microbatch of the run, a route and a path through its stages, a time.
- What is not believed is dropped before anything is made of it, and counted.

    Forward             at stage 0 the trainer; else a replica of the stage before
    Backward            who has this stage's output, with the trainer's seal of its grant; or was
                        named as the next on the path
    Accepted Busy       whom the output was sent to
    NoFrame Stale       who was asked (`recovery`, `forwards`)
    GetFrame            replicas of the stages before and after (`recovery`)
    Part                members of the round (`reducing`)
    Hail … Finish       the trainer
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from swarmrt.ids import MicrobatchId, PeerId, SeatId, Work
from swarmrt.messages import (
    Accepted,
    Admit,
    Apply,
    Backward,
    Busy,
    Drain,
    Finish,
    Forward,
    GetFrame,
    Granted,
    Hail,
    LeftOut,
    Message,
    NoFrame,
    Part,
    Prepare,
    Recover,
    SayEvery,
    Stale,
    Standing,
    Update,
)
from swarmrt.scheduler.peer.seat import Seat
from swarmrt.scheduler.peer.work.tasks import Tasks
from swarmrt.scheduler.seals import is_granted, is_key
from swarmrt.scheduler.timing.estimate import is_duration

MAX_ATTEMPTS = 1 << 20  # of one microbatch; a trainer makes more only if nothing ever comes back
MAX_NAME = 128  # characters of a peer's id, which has 46 or 52
MAX_DIGEST = 64  # characters
MAX_NUMBER = 1 << 62  # of steps, epochs, rounds and tokens: whatever is counted stays sendable


class Believing:
    def __init__(self, seat: Seat, tasks: Tasks) -> None:
        self.refused: Counter[str] = Counter()  # by kind of message
        self._seat, self._tasks = seat, tasks
        self._stages = tuple(range(seat.settings.num_stages))
        self._most_behind = seat.store.most_steps(by_owners=False)
        self._from_peers: dict[type[Message], Callable[[SeatId, Any], bool]] = {
            Forward: self._forward,
            Backward: self._backward,
            Accepted: self._answer,
            Busy: self._answer,
            Stale: lambda sender, message: self._is_work(message.work),
            GetFrame: self._about_frame,
            NoFrame: self._about_frame,
            Part: self._part,
        }
        self._from_trainer: dict[type[Message], Callable[[Any], bool]] = {
            Hail: lambda message: _is_number(message.epoch),
            Admit: self._admit,
            Granted: self._ownership,
            Recover: self._ownership,
            Standing: self._standing,
            Prepare: self._prepare,
            Update: self._apply,
            Apply: self._apply,
            Drain: lambda message: _is_number(message.epoch),
            Finish: lambda message: True,
            LeftOut: self._left_out,
            SayEvery: lambda word: _is_number(word.epoch) and is_duration(word.every_s),
        }

    def believes(self, sender: PeerId, message: Message) -> bool:
        believed = self._believes(sender, message)
        if not believed:
            self.refused[type(message).__name__] += 1
        return believed

    def _believes(self, sender: PeerId, message: Message) -> bool:
        of_peers = self._from_peers.get(type(message))
        if of_peers is not None:
            return of_peers(sender, message)
        of_trainer = self._from_trainer.get(type(message))
        return of_trainer is not None and self._is_trainer(sender) and of_trainer(message)

    def _is_trainer(self, sender: PeerId) -> bool:
        return sender == self._seat.settings.trainer

    # ------------------------------------------------------------------ what peers say

    def _forward(self, sender: PeerId, message: Forward) -> bool:
        """Return whether a forward may be so: at the first stage it is the trainer's."""
        if self._is_trainer(sender) != self._seat.is_first or not _is_number(message.epoch):
            return False
        return self._is_work(message.work) and self._is_route(message.route, sender)

    def _backward(self, sender: PeerId, message: Backward) -> bool:
        """Return whether its path names the sender as the peer of the next stage."""
        stage = self._seat.stage
        task = self._tasks.get(message.microbatch)
        if task is None or self._seat.is_last or self._is_trainer(sender):
            return False
        follows = self._is_path(message.path, message.need) and message.path[stage + 1] == sender
        if not (follows and self._is_trained(message.microbatch) and _is_number(message.epoch)):
            return False
        return task.named == sender or (sender in task.heirs and is_granted(message, self._seat))

    def _answer(self, sender: PeerId, message: Accepted | Busy) -> bool:
        if not self._is_heir(sender, message.work.microbatch) or not self._is_work(message.work):
            return False
        return is_duration(message.service_s) and is_duration(message.backlog_s)

    def _about_frame(self, sender: PeerId, message: GetFrame | NoFrame) -> bool:
        sound = _is_number(message.epoch) and self._is_trained(message.microbatch)
        return sound and not self._is_trainer(sender)

    def _part(self, sender: PeerId, message: Part) -> bool:
        numbers = (message.epoch, message.step, message.round, message.index)
        return not self._is_trainer(sender) and all(map(_is_number, numbers))

    def _is_heir(self, sender: PeerId, microbatch: MicrobatchId) -> bool:
        task = self._tasks.get(microbatch)
        return task is not None and sender in task.heirs and not self._is_trainer(sender)

    # ------------------------------------------------------------------ what the trainer says

    def _admit(self, message: Admit) -> bool:
        if not is_key(message.key):
            return False
        counts = all(map(_is_number, (message.epoch, message.term, message.version)))
        return counts and _is_norm(message.norm) and all(map(_is_name, message.donors))

    def _ownership(self, message: Granted | Recover) -> bool:
        sound = _is_number(message.epoch) and self._is_trained(message.microbatch)
        return sound and self._is_path(message.path, message.need)

    def _standing(self, message: Standing) -> bool:
        sound = _is_number(message.epoch) and message.stage in self._stages
        return sound and _is_name(message.peer) and _is_number(message.holds)

    def _left_out(self, message: LeftOut) -> bool:
        times = (message.takes_s, message.step_s, message.rest_s)
        return all(map(_is_number, (message.epoch, message.term))) and all(map(is_duration, times))

    def _apply(self, message: Update | Apply) -> bool:
        counts = _is_number(message.epoch) and _is_number(message.round)
        is_named = isinstance(message, Update) or len(message.digest) <= MAX_DIGEST
        return counts and is_named and self._is_near(message.step) and _is_norm(message.norm)

    def _prepare(self, prepare: Prepare) -> bool:
        """Return whether a roster has everybody once, and every microbatch at most once."""
        peers = [peer for peer, _ in prepare.roster]
        indices = [index for _, its_indices in prepare.roster for index in its_indices]
        counted = len(set(peers)) == len(peers) > 0 and len(set(indices)) == len(indices)
        named = all(map(_is_name, (*peers, *prepare.listeners)))
        within = all(0 <= index < self._seat.settings.microbatches for index in indices)
        numbers = all(map(_is_number, (prepare.epoch, prepare.round, prepare.tokens)))
        apart = not set(peers) & set(prepare.listeners)
        is_near = self._is_near(prepare.step)
        whole = prepare.tokens == 0 and not indices if prepare.skip else prepare.tokens > 0
        return counted and named and within and numbers and apart and is_near and whole

    # ------------------------------------------------------------------ values

    def _is_near(self, step: int) -> bool:
        """Return whether a step is near: what is kept of steps that are to come is bounded."""
        return 0 <= step <= self._seat.version + self._most_behind + 1

    def _is_work(self, work: Work) -> bool:
        return 0 <= work.attempt <= MAX_ATTEMPTS and self._is_microbatch(work.microbatch)

    def _is_microbatch(self, microbatch: MicrobatchId) -> bool:
        settings = self._seat.settings
        held_out = microbatch.held_out
        number = settings.eval_microbatches if held_out else settings.microbatches
        return 0 <= microbatch.index < number and _is_number(microbatch.step)

    def _is_trained(self, microbatch: MicrobatchId) -> bool:
        """Return whether it is a microbatch that has a gradient."""
        return not microbatch.held_out and self._is_microbatch(microbatch)

    def _is_route(self, route: Sequence[SeatId], sender: PeerId) -> bool:
        """Return whether these are the peers of all stages before this one, the sender last."""
        if len(route) != self._seat.stage or not all(map(_is_name, route)):
            return False
        return not route or route[-1] == sender

    def _is_path(self, path: Sequence[SeatId], need: Sequence[int]) -> bool:
        """Return whether it has a peer or nobody for each stage, this one for its own; and whether
        some stages are needed, in order."""
        if len(path) != len(self._stages) or path[self._seat.stage] != self._seat.me:
            return False
        if max(map(len, path)) > MAX_NAME or len(need) > len(self._stages):
            return False
        return need == tuple(stage for stage in self._stages if stage in need)


def _is_number(value: int) -> bool:
    return 0 <= value <= MAX_NUMBER


def _is_norm(value: float) -> bool:
    return 0 <= value < math.inf


def _is_name(peer: SeatId) -> bool:
    return 0 < len(peer) <= MAX_NAME
