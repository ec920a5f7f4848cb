"""The steps that a simulated replica makes by itself: which microbatches its own weights have.

Its live weights are the version's, an anchor, and what it has moved since. A move is the names of
the microbatches in it, so that a lost or doubled one is seen at once, in the live weights too.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from swarmrt.ids import MicrobatchId
from swarmrt.scheduler.local_work import NO_LOCAL_WORK, LocalWork
from swarmrt.sim.swarm.fetching import History

Gradient = Counter[str]


class LocalSteps:
    def __init__(self, local_from: int) -> None:
        """`local_from` is the first step in which there are any."""
        self._local_from = local_from
        self._moved: dict[int, Gradient] = defaultdict(Counter)  # by step
        self._fixed: dict[int, Gradient] = {}  # by step: what a round takes
        self.number = 0  # since the version
        self._weights = 0  # of all that there have been, the newest
        self._ran_on: dict[MicrobatchId, int] = {}  # that are between forward and backward
        self._backwards = self._late = 0  # since the version

    def is_local(self, step: int) -> bool:
        return step >= self._local_from

    def added(self, step: int, accumulated: Gradient, own_step: int) -> None:
        """Make a step of what is accumulated and in none yet, once that is so many microbatches; 0
        for never."""
        left = accumulated - self._moved[step]
        if self.is_local(step) and 0 < 2 * own_step <= left.total():
            self._move(step, accumulated)

    def forwarded(self, microbatch: MicrobatchId) -> None:
        """Take note of the weights that a microbatch has run on."""
        self._ran_on[microbatch] = self._weights

    def came_back(self, microbatch: MicrobatchId) -> None:
        """Count a backward, and whether there are newer weights than those of its forward."""
        ran_on = self._ran_on.pop(microbatch, self._weights)
        self._backwards += 1
        self._late += ran_on < self._weights

    def forget(self, microbatch: MicrobatchId) -> None:
        self._ran_on.pop(microbatch, None)

    def contribute(self, step: int, accumulated: Gradient) -> None:
        """Make a step of what is left, and fix what a round takes."""
        assert self.is_local(step), f"nothing is moved in step {step}"
        if accumulated - self._moved[step]:
            self._move(step, accumulated)
        self._fixed[step] = Counter(self._moved[step])

    def _move(self, step: int, accumulated: Gradient) -> None:
        self._moved[step] = Counter(accumulated)
        self.number += 1
        self._weights += 1

    def contribution(self, step: int) -> Gradient:
        """Return what a round takes."""
        assert step in self._fixed, f"a round takes what was not fixed of step {step}"
        return Counter(self._fixed[step])

    def went_back(self) -> None:
        """Take the live weights back to the anchor."""
        self._moved.clear()
        self._fixed.clear()

    def made(self, step: int) -> LocalWork:
        """Return what was done since the version before, as the step's own version is made: the
        anchor moves on, and what was moved in the step goes."""
        self._moved.pop(step, None)
        self._fixed.pop(step, None)
        late = self._late / self._backwards if self._backwards else 0.0
        work = LocalWork(self.number, late, 0.0) if self.number else NO_LOCAL_WORK
        self.number = self._backwards = self._late = 0
        self._weights += 1
        return work

    def check(self, anchor: History, accumulated: dict[int, Gradient]) -> None:
        """Check that the live weights have nothing twice, nothing half, and nothing that is
        void."""
        for step in self._moved.keys() | accumulated.keys():
            moved, added = self._moved[step], accumulated.get(step, Counter())
            assert not moved or step >= len(anchor), f"step {step} is in version {len(anchor)}"
            assert not moved - added, f"step {step}: {moved} has what is void"
