"""The paces of processes in the long run, by what their seats say that they have computed."""

from __future__ import annotations

from collections.abc import Sequence

from swarmrt.ids import PeerId, SeatId
from swarmrt.scheduler.rebalancing.rates import LongMean
from swarmrt.scheduler.trainer.membership.arranging.stage_work import StageWork
from swarmrt.scheduler.trainer.membership.members import Member

AS_FAST = 4.0  # times as the usual one: nobody is believed to be more before it has worked
UNKNOWN = 1.0  # microbatches a second, where nobody has told anything


class Paces:
    def __init__(self, weights: Sequence[float]) -> None:
        """Begin with what is said of a microbatch's work at each stage, beside each other."""
        self._work = StageWork(weights)
        self._means: dict[PeerId, LongMean] = {}
        self._done: dict[SeatId, int] = {}  # computations, by their newest beacon

    def note(self, whose: PeerId, member: Member) -> None:
        """Take what a seat of theirs says that it has computed since it was asked last."""
        beacon = member.beacon
        if beacon is None or not beacon.service_s:
            return
        weight = self.work()[member.stage]
        mean = self._means.get(whose)
        if mean is None:
            most = AS_FAST * self.usual()
            said = weight / beacon.service_s
            mean = self._means[whose] = LongMean(min(said, most) if self._means else said)
        since = beacon.done - self._done.get(member.peer, beacon.done)
        self._done[member.peer] = beacon.done
        self._work.note(whose, member.stage, since, beacon.service_s)
        mean.record(since, since * weight, since * beacon.service_s)

    def work(self) -> tuple[float, ...]:
        """Return the work of a microbatch at each stage; 1 in the mean."""
        return self._work.of_stages()

    def rate(self, whose: PeerId) -> float:
        """Return its rate; where that is not known, the usual one."""
        mean = self._means.get(whose)
        return mean.told if mean is not None else self.usual()

    def knows(self, whose: PeerId) -> bool:
        return whose in self._means

    def usual(self) -> float:
        """Return the median of all that are known."""
        told = sorted(mean.told for mean in self._means.values())
        return told[len(told) // 2] if told else UNKNOWN

    def forget(self, there: set[PeerId], seats: set[SeatId]) -> None:
        """Forget whoever is not there any more."""
        self._work.forget(there)
        self._means = {whose: mean for whose, mean in self._means.items() if whose in there}
        self._done = {seat: done for seat, done in self._done.items() if seat in seats}
