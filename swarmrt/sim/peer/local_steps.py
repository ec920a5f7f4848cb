"""The steps that a simulated replica makes by itself: which microbatches its own weights have.

Its live weights are the version's, an anchor, and what it has moved since. A move is the names of
the microbatches in it, so that a lost or doubled one is seen at once, in the live weights too.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from swarmrt.sim.swarm.fetching import History

Gradient = Counter[str]


class LocalSteps:
    def __init__(self, local_from: int, local_batch: int) -> None:
        """`local_from` is the first step in which there are any, `local_batch` the microbatches of
        one."""
        self._local_from, self._local_batch = local_from, local_batch
        self._moved: dict[int, Gradient] = defaultdict(Counter)  # by step
        self._fixed: dict[int, Gradient] = {}  # by step: what a round takes
        self.number = 0  # since the version

    def is_local(self, step: int) -> bool:
        return step >= self._local_from

    def added(self, step: int, accumulated: Gradient) -> None:
        """Make a step of what is accumulated and not in one yet, once that is enough."""
        left = accumulated - self._moved[step]
        if left.total() >= 2 * self._local_batch:
            self._move(step, accumulated)

    def contribute(self, step: int, accumulated: Gradient) -> None:
        """Make a step of what is left, and fix what a round takes."""
        assert self.is_local(step), f"nothing is moved in step {step}"
        if accumulated - self._moved[step]:
            self._move(step, accumulated)
        self._fixed[step] = Counter(self._moved[step])

    def _move(self, step: int, accumulated: Gradient) -> None:
        self._moved[step] = Counter(accumulated)
        self.number += 1

    def contribution(self, step: int) -> Gradient:
        """Return what a round takes."""
        assert step in self._fixed, f"a round takes what was not fixed of step {step}"
        return Counter(self._fixed[step])

    def went_back(self) -> None:
        """Take the live weights back to the anchor."""
        self._moved.clear()
        self._fixed.clear()

    def made(self, step: int) -> int:
        """Return the number of steps since the version before, as the step's own version is made:
        the anchor moves on, and what was moved in the step goes."""
        self._moved.pop(step, None)
        self._fixed.pop(step, None)
        number, self.number = self.number, 0
        return number

    def check(self, anchor: History, accumulated: dict[int, Gradient]) -> None:
        """Check that the live weights have nothing twice, nothing half, and nothing that is
        void."""
        for step in self._moved.keys() | accumulated.keys():
            moved, added = self._moved[step], accumulated.get(step, Counter())
            assert not moved or step >= len(anchor), f"step {step} is in version {len(anchor)}"
            assert not moved - added, f"step {step}: {moved} has what is void"
            left = (added - moved).total()
            assert not self.is_local(step) or left < 2 * self._local_batch, f"step {step} is lost"
