"""The tasks of a peer: what it knows of each microbatch, and which computation is next.

The frames of a microbatch are functions of (weights, microbatch, seed), whoever computes them. So
a peer has one task for a microbatch, however many attempts pass it.

    forward    AWAITED → QUEUED → RUNNING → DONE
    backward   AWAITED → QUEUED → RUNNING → DONE
    weights    AWAITED → QUEUED → RUNNING → DONE    only where backward leaves them for later
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from swarmrt.ids import MicrobatchId, PeerId, Work
from swarmrt.messages import FrameKind, Path


class Phase(StrEnum):
    AWAITED = "awaited"  # its frame is not here yet
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


@dataclass(slots=True)
class Task:
    microbatch: MicrobatchId
    attempt: int = 0
    route: tuple[PeerId, ...] = ()  # that the newest attempt passed before this stage
    forward: Phase = Phase.AWAITED
    backward: Phase = Phase.AWAITED
    weights: Phase = Phase.AWAITED  # their gradients, left by backward
    backward_s: float = 0.0  # that it took without them
    onward: bool = False  # goes on to the next stage, or to a claim
    pushed_to: PeerId | None = None
    pushed_at: float = 0.0
    pushes: dict[PeerId, tuple[float, float]] = field(default_factory=dict)  # not answered yet:
    # when, and how long that was waited for
    accepted: bool = False
    is_wanted: bool = False  # the output is, by the newest attempt: no gradient has come for it yet
    claimed_at: float = 0.0
    claim_patience_s: float = 0.0  # before it is claimed again
    retries: int = 0  # of the push or the claim
    loss_sum: float = 0.0
    tokens: int = 0
    granted: bool = False  # at the last stage: backward may run
    path: Path = ()
    need: tuple[int, ...] = ()  # stages that are to accumulate
    seals: str = ""  # of that path and need
    has_gradient: bool = False  # of the output, for backward to use
    has_graph: bool = False
    has_output: bool = False  # retained, to be sent again
    has_input_grad: bool = False
    output_bytes: int = 0
    input_grad_bytes: int = 0
    output_wanted_by: PeerId | None = None  # as soon as it is there
    asked: dict[FrameKind, PeerId] = field(default_factory=dict)  # frames on their way here
    heirs: set[PeerId] = field(default_factory=set)  # who was given the output
    named: PeerId | None = None  # by the trainer: who gives the gradient, whatever was granted
    given: dict[tuple[PeerId, FrameKind], int] = field(default_factory=dict)  # how often
    input_of: PeerId | None = None  # whose it is that forward is computed from
    gradient_of: PeerId | None = None  # the same, of backward

    @property
    def is_running(self) -> bool:
        return Phase.RUNNING in (self.forward, self.backward, self.weights)

    @property
    def work(self) -> Work:
        return Work(self.microbatch, self.attempt)

    def passes_on(self, stage: int) -> bool:
        """Return whether a stage before needs the input gradient, and there is somebody to take
        it."""
        if stage == 0 or not any(needed < stage for needed in self.need):
            return False
        return bool(self.path[stage - 1])  # else it is vacant: its next owner asks


Kind = Literal["forward", "backward", "weights"]
KINDS: tuple[Kind, ...] = ("forward", "backward", "weights")
Entry = tuple[int, bool, int, MicrobatchId]
MOST_AHEAD = 8  # computations that are handed over before the running one ends


class Tasks:
    """All tasks of a peer, and a queue for each kind of computation, the oldest first."""

    def __init__(self, staleness: int = 0) -> None:
        self._staleness = staleness
        self._tasks: dict[MicrobatchId, Task] = {}
        self._queues: dict[Kind, list[Entry]] = {kind: [] for kind in KINDS}
        self._num_queued: Counter[tuple[Kind, int]] = Counter()  # by version that it needs
        self._num_open: Counter[Kind] = Counter()  # queued and started
        self._started: dict[MicrobatchId, tuple[Kind, Task]] = {}  # whose outcome has not come
        self._voided = False  # what is started counts no more; nothing is begun until it is over

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

    def drop(self, task: Task) -> None:
        if self._tasks.pop(task.microbatch, None) is not None:
            for kind in KINDS:
                if getattr(task, kind) is Phase.QUEUED:
                    self._count(kind, task, -1)
                    self._num_open[kind] -= 1

    def clear(self) -> list[MicrobatchId]:
        """Drop all; those that there were."""
        dropped = list(self._tasks)
        self._voided = bool(self._started)
        self._tasks.clear()
        for queue in self._queues.values():
            queue.clear()
        self._num_queued.clear()
        self._num_open = Counter(kind for kind, _ in self._started.values())
        return dropped

    def queue(self, kind: Kind, task: Task) -> None:
        setattr(task, kind, Phase.QUEUED)
        self._count(kind, task, 1)
        self._num_open[kind] += 1
        heapq.heappush(self._queues[kind], self._entry(task.microbatch))

    @property
    def started(self) -> int:
        """Computations whose outcome has not come."""
        return len(self._started)

    def is_started(self, microbatch: MicrobatchId) -> bool:
        """Return whether a computation of its task is under way, and not one that is void."""
        _, task = self._started.get(microbatch, (None, None))
        return task is not None and self._tasks.get(microbatch) is task

    def may_start(self, ahead: int) -> bool:
        """Return whether there is room for one, when so many are handed over before their turn."""
        return len(self._started) <= ahead and not self._voided

    def oldest(self, kind: Kind, version: int) -> Task | None:
        """The oldest task that is queued for it, if this version can compute it."""
        queue = self._queues[kind]
        while queue:
            task = self._tasks.get(queue[0][-1])
            if task is not None and getattr(task, kind) is Phase.QUEUED:
                return task if self._is_ready(task.microbatch, version) else None
            heapq.heappop(queue)
        return None

    def start(self, kind: Kind, task: Task) -> None:
        """The one that `oldest` has named."""
        heapq.heappop(self._queues[kind])
        setattr(task, kind, Phase.RUNNING)
        self._count(kind, task, -1)
        self._started[task.microbatch] = kind, task

    def finished(self, microbatch: MicrobatchId) -> Task | None:
        """A computation's outcome is here; the task that it belongs to, if there still is one."""
        kind, task = self._started.pop(microbatch, (None, None))
        if kind is not None:
            self._num_open[kind] -= 1
        if not self._started:
            self._voided = False
        return task if task is not None and self._tasks.get(microbatch) is task else None

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
        key = (kind, task.microbatch.runs_on(self._staleness))
        self._num_queued[key] += change
        if not self._num_queued[key]:
            del self._num_queued[key]

    def _entry(self, microbatch: MicrobatchId) -> Entry:
        """Heap order: by the weights that it needs, then evaluations, which hold up a commit, then
        by index."""
        version = microbatch.runs_on(self._staleness)
        return version, not microbatch.held_out, microbatch.index, microbatch

    def _is_ready(self, microbatch: MicrobatchId, version: int) -> bool:
        """Return whether its weights are here, and no earlier computation of it is still under
        way."""
        has_weights = microbatch.runs_on(self._staleness) <= version
        return has_weights and microbatch not in self._started

    def validate(self) -> None:
        """Check the counts against the tasks, in one pass: simulations do it after every event."""
        queued: dict[tuple[Kind, int], int] = {}
        num_open = dict.fromkeys(KINDS, 0)
        for microbatch, task in self._tasks.items():
            assert microbatch == task.microbatch
            phases = (task.forward, task.backward, task.weights)
            assert Phase.RUNNING not in phases or microbatch in self._started, task
            if Phase.QUEUED in phases:
                version = microbatch.runs_on(self._staleness)
                for kind, phase in zip(KINDS, phases, strict=True):
                    if phase is Phase.QUEUED:
                        queued[kind, version] = queued.get((kind, version), 0) + 1
                        num_open[kind] += 1
            if task.backward is Phase.QUEUED or task.backward is Phase.RUNNING:
                assert task.forward is Phase.DONE and task.has_graph, task
        for kind, _ in self._started.values():
            num_open[kind] += 1
        assert len(self._started) <= MOST_AHEAD + 1
        assert queued == dict(self._num_queued), (queued, self._num_queued)
        assert num_open == {kind: self._num_open[kind] for kind in KINDS}, self._num_open
