"""The queue of what a seat computes: for each kind of computation the oldest first.

What is begun runs in the order in which it was begun; a device that several seats share takes it in
turns (`lanes`). Each step of a task's computations through it is one of the table in `task`.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping

from swarmrt.ids import MicrobatchId
from swarmrt.scheduler.peer.work.task import KINDS, Kind, Status, Task

Entry = tuple[int, bool, int, int, int, Task]
MOST_AHEAD = 8  # computations that are handed over before the running one ends


class ComputeQueue:
    def __init__(self) -> None:
        self._queues: dict[Kind, list[Entry]] = {kind: [] for kind in KINDS}
        self._num_queued: Counter[tuple[Kind, int]] = Counter()  # by version that it needs
        self._num_open: Counter[Kind] = Counter()  # queued and started
        self._started: dict[MicrobatchId, tuple[Kind, Task]] = {}  # whose outcome has not come
        self._voided = False  # what is started counts no more; nothing is begun until it is over
        self._added = 0  # ever

    def add(self, kind: Kind, task: Task) -> None:
        """Queue one of a task's computations: its input is here."""
        task.move(kind, "is queued")
        self._count(kind, task, 1)
        self._num_open[kind] += 1
        self._added += 1
        microbatch = task.microbatch
        # by the weights that it needs, then evaluations, which hold up a commit, then by step: two
        # may run on the same weights
        place = (microbatch.commits_in, microbatch.index, self._added)
        entry = (task.runs_on, not microbatch.held_out, *place, task)
        heapq.heappush(self._queues[kind], entry)

    def drop(self, task: Task) -> None:
        """Compute nothing of a task any more. What runs of it ends, and counts for nothing."""
        task.drop()
        for kind in KINDS:
            if getattr(task, kind) is Status.QUEUED:
                self._count(kind, task, -1)
                self._num_open[kind] -= 1

    def clear(self) -> None:
        """Drop all. Nothing is begun until what runs is over."""
        self._voided = bool(self._started)
        for queue in self._queues.values():
            for *_, task in queue:
                task.drop()
            queue.clear()
        for _, task in self._started.values():
            task.drop()
        self._num_queued.clear()
        self._num_open = Counter(kind for kind, _ in self._started.values())

    @property
    def num_started(self) -> int:
        """Return how many computations there are whose outcome has not come."""
        return len(self._started)

    def is_started(self, microbatch: MicrobatchId) -> bool:
        """Return whether a computation of its task is under way, and not one that is void."""
        _, task = self._started.get(microbatch, (None, None))
        return task is not None and not task.is_dropped

    def may_start(self, ahead: int) -> bool:
        """Return whether there is room for one, when so many are handed over before their turn."""
        return len(self._started) <= ahead and not self._voided

    def oldest(self, kind: Kind, version: int) -> Task | None:
        """Return the oldest task that is queued for it, if this version can compute it."""
        queue = self._queues[kind]
        while queue:
            needed, *_, task = queue[0]
            if getattr(task, kind) is Status.QUEUED and not task.is_dropped:
                is_ready = needed <= version and task.microbatch not in self._started
                return task if is_ready else None
            heapq.heappop(queue)
        return None

    def begin(self, kind: Kind, task: Task) -> None:
        """Begin the computation that `oldest` has named."""
        heapq.heappop(self._queues[kind])
        task.move(kind, "begins")
        self._count(kind, task, -1)
        self._started[task.microbatch] = kind, task

    def end(self, microbatch: MicrobatchId) -> Task | None:
        """Take note that a computation's outcome is here. Return its task; None if it is void."""
        kind, task = self._started.pop(microbatch, (None, None))
        if not self._started:
            self._voided = False
        if kind is None or task is None:
            return None
        self._num_open[kind] -= 1
        task.move(kind, "ends")
        return None if task.is_dropped else task

    def waiting(self, kind: Kind) -> int:
        """Return how many of a kind are queued, or handed over behind the one that runs."""
        return self._num_open[kind] - (kind == self._running)

    @property
    def _running(self) -> Kind | None:
        """Return what runs: of the started computations the first one, the others wait for it."""
        return next(iter(self._started.values()))[0] if self._started else None

    def computable(self, version: int) -> int:
        """Return what this version can compute, with what runs: the rest waits for the next
        version.

        Without weights' gradients, which fill the time in which there is nothing else.
        """
        waiting = (
            number
            for (kind, needed), number in self._num_queued.items()
            if needed <= version and kind != "weights"
        )
        return sum(waiting) + len(self._started)

    def _count(self, kind: Kind, task: Task, change: int) -> None:
        key = (kind, task.runs_on)
        self._num_queued[key] += change
        if not self._num_queued[key]:
            del self._num_queued[key]

    def validate(self, tasks: Mapping[MicrobatchId, Task]) -> None:
        """Check the counts against the tasks, in one pass: simulations do it after every event."""
        queued: dict[tuple[Kind, int], int] = {}
        num_open = dict.fromkeys(KINDS, 0)
        for microbatch, task in tasks.items():
            statuses = (task.forward, task.backward, task.weights)
            assert not task.is_dropped, task
            assert Status.RUNNING not in statuses or microbatch in self._started, task
            if Status.QUEUED in statuses:
                for kind, status in zip(KINDS, statuses, strict=True):
                    if status is Status.QUEUED:
                        key = (kind, task.runs_on)
                        queued[key] = queued.get(key, 0) + 1
                        num_open[kind] += 1
        for kind, _ in self._started.values():
            num_open[kind] += 1
        assert len(self._started) <= MOST_AHEAD + 1
        assert queued == dict(self._num_queued), (queued, self._num_queued)
        assert num_open == {kind: self._num_open[kind] for kind in KINDS}, self._num_open
