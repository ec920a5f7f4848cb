"""The frames that a peer keeps so that a neighbour's loss costs one stage's recompute.

A frame is kept as it was sent until its step is committed. When the budget is full, those of the
microbatches that have come furthest go first: they are the least likely to be asked for.
"""

from __future__ import annotations

from swarmrt.ids import MicrobatchId
from swarmrt.scheduler.instructions import DropFrames, Instruction
from swarmrt.scheduler.peer.work.task import Status, Task
from swarmrt.scheduler.peer.work.tasks import Tasks


class Retention:
    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self.held_bytes = 0
        self._held: dict[MicrobatchId, int] = {}  # bytes of each one's frames
        self._done: dict[MicrobatchId, Task] = {}  # backward has run: these go first
        self._spare: dict[MicrobatchId, Task] = {}  # the output is taken: then these

    def keep_within(self, task: Task) -> list[Instruction]:
        """Take note that frames of this task have come, or are spare now. Return what drops others
        for them.

        A frame whose receipt is still awaited is never dropped.
        """
        self._hold(task)
        if task.backward is Status.DONE:
            self._done[task.microbatch] = task
        elif _is_spare(task):
            self._spare[task.microbatch] = task
        dropped: list[Instruction] = []
        while self.held_bytes > self._budget_bytes and (spare := self._next_spare()) is not None:
            spare.frames_dropped()
            self.forget(spare.microbatch)
            dropped.append(DropFrames(spare.microbatch))
        return dropped

    def forget(self, microbatch: MicrobatchId) -> None:
        """Forget its frames, which are gone."""
        self.held_bytes -= self._held.pop(microbatch, 0)
        self._done.pop(microbatch, None)
        self._spare.pop(microbatch, None)

    def clear(self) -> None:
        self.held_bytes = 0
        self._held.clear()
        self._done.clear()
        self._spare.clear()

    def _hold(self, task: Task) -> None:
        size = task.held_bytes
        self.held_bytes += size - self._held.pop(task.microbatch, 0)
        if size:
            self._held[task.microbatch] = size

    def _next_spare(self) -> Task | None:
        for candidates in (self._done, self._spare):
            while candidates:
                task = candidates.pop(next(iter(candidates)))
                if task.microbatch in self._held and _is_spare(task):
                    return task
        return None

    def validate(self, tasks: Tasks) -> None:
        held = {task.microbatch: size for task in tasks if (size := task.held_bytes)}
        assert self._held == held and self.held_bytes == sum(held.values()), (self._held, held)


def _is_spare(task: Task) -> bool:
    """Return whether its output has been taken, and its gradient is not still to be computed from
    it."""
    return task.accepted or not task.onward or task.backward is Status.DONE
