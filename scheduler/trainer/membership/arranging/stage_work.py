"""The work of a microbatch at each stage, beside each other, as processes show that have moved.

A process at a stage with much work looks slow, and one at a stage with little looks fast: exchanged
for each other they would look the other way round, and be exchanged again. Who has computed at two
stages says how they differ. Logarithms of seconds are the process's pace and the stage's work
added up; both are fitted in turns, the work by medians (median polish; Tukey 1977): a single
process may say anything. Stages at which nobody was that has been elsewhere have as much work as
they were said to have.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from swarmrt.ids import PeerId

ENOUGH = 20  # computations at a stage, to say anything of it
ROUNDS = 10  # of fitting: what moves between stages does so back and forth
NEWEST = 1 / 4  # weight of what is told last


class StageWork:
    def __init__(self, said: Sequence[float]) -> None:
        """Begin with what is said of the stages before anybody has computed."""
        self._said = tuple(said)
        self._seconds: defaultdict[PeerId, dict[int, float]] = defaultdict(dict)
        self._done: defaultdict[PeerId, dict[int, int]] = defaultdict(dict)
        self._fitted: tuple[float, ...] | None = None

    def note(self, whose: PeerId, stage: int, computations: int, service_s: float) -> None:
        """Take how long each of some computations has taken a process at a stage."""
        if computations <= 0 or not 0 < service_s < math.inf:
            return
        done, seconds = self._done[whose], self._seconds[whose]
        done[stage] = done.get(stage, 0) + computations
        before = seconds.get(stage, service_s)
        seconds[stage] = before + NEWEST * (service_s - before)
        if len(done) > 1:
            self._fitted = None

    def forget(self, there: set[PeerId]) -> None:
        """Forget whoever is not there any more. What was learned from them stays."""
        gone = [whose for whose in self._seconds if whose not in there]
        if any(len(self._seconds[whose]) > 1 for whose in gone):
            self._said, self._fitted = self.of_stages(), None
        for whose in gone:
            del self._seconds[whose], self._done[whose]

    def of_stages(self) -> tuple[float, ...]:
        """Return the work of a microbatch at each stage; 1 in the mean."""
        if self._fitted is None:
            self._fitted = self._fit()
        return self._fitted

    def _fit(self) -> tuple[float, ...]:
        work = [math.log(said) for said in self._said]
        moved = [
            {
                stage: math.log(seconds)
                for stage, seconds in its.items()
                if self._done[whose][stage] >= ENOUGH
            }
            for whose, its in self._seconds.items()
            if len(its) > 1
        ]
        moved = [its for its in moved if len(its) > 1]
        for _ in range(ROUNDS):
            told: defaultdict[int, list[float]] = defaultdict(list)
            for its in moved:
                pace = sum(log_s - work[stage] for stage, log_s in its.items()) / len(its)
                for stage, log_s in its.items():
                    told[stage].append(log_s - pace)
            for stage, logs in told.items():
                work[stage] = median(logs)
        mean = sum(map(math.exp, work)) / len(work)
        return tuple(math.exp(log) / mean for log in work)
