"""The steps of a run: what of them may be sent out, and when one is committed."""

from __future__ import annotations


class Steps:
    """Steps of so many microbatches; 0 for a single one without an end.

    With a staleness of 1 the next step is computed while one is reduced.
    """

    def __init__(self, microbatches: int, staleness: int) -> None:
        self.microbatches, self._staleness = microbatches, staleness
        self.committed = 0  # steps
        self.round = 0  # a reduce that was begun with another number is void
        self._newest, self._sent = 0, 0  # step, and its microbatches that are out
        self._left: dict[int, int] = {0: microbatches}  # to be computed, by step

    @property
    def may_send(self) -> bool:
        return not self.microbatches or self._newest <= self.committed + self._staleness

    def send(self) -> int:
        """Return the step of one more microbatch."""
        step = self._newest
        if self.microbatches:
            self._sent += 1
            if self._sent == self.microbatches:
                self._newest, self._sent = step + 1, 0
                self._left[step + 1] = self.microbatches
        return step

    def landed(self, step: int) -> bool:
        """Return whether the oldest step has come to its end with this microbatch."""
        if not self.microbatches:
            return False
        self._left[step] -= 1
        return step == self.committed and not self._left[step]

    def lost(self, step: int, microbatches: int) -> None:
        """Take note that so many have to be computed again."""
        self._left[step] += microbatches
        self.round += 1

    def commit(self) -> bool:
        """Commit the oldest step; return whether the next one has come to its end as well."""
        del self._left[self.committed]
        self.committed += 1
        self.round += 1
        return not self._left.get(self.committed, 1)

    def go_back(self) -> None:
        """Begin the oldest step again."""
        self.round += 1
        self._newest, self._sent = self.committed, 0
        self._left = {self.committed: self.microbatches}
