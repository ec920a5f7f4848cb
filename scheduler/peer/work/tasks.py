"""The tasks of a seat: one for each microbatch that it knows."""

from __future__ import annotations

from collections.abc import Iterator

from swarmrt.ids import MicrobatchId
from swarmrt.scheduler.peer.work.queue import ComputeQueue
from swarmrt.scheduler.peer.work.task import Kind, Task


class Tasks:
    def __init__(self, queue: ComputeQueue) -> None:
        self._queue = queue
        self._tasks: dict[MicrobatchId, Task] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(list(self._tasks.values()))

    def __contains__(self, microbatch: MicrobatchId) -> bool:
        return microbatch in self._tasks

    def get(self, microbatch: MicrobatchId) -> Task | None:
        return self._tasks.get(microbatch)

    def add(self, task: Task) -> Task:
        self._tasks[task.microbatch] = task
        return task

    def queue(self, kind: Kind, task: Task) -> None:
        self._queue.add(kind, task)

    def drop(self, task: Task) -> None:
        """Forget a task. What runs of it ends, and counts for nothing."""
        if self._tasks.pop(task.microbatch, None) is not None:
            self._queue.drop(task)

    def clear(self) -> list[MicrobatchId]:
        """Drop all; return those that there were."""
        dropped = list(self._tasks)
        self._tasks.clear()
        self._queue.clear()
        return dropped

    def between(self) -> int:
        """Return how many microbatches are between forward and backward."""
        return sum(task.is_between for task in self._tasks.values())

    def validate(self) -> None:
        """Check the tasks and what is queued of them."""
        for microbatch, task in self._tasks.items():
            assert microbatch == task.microbatch
            task.validate()
        self._queue.validate(self._tasks)
