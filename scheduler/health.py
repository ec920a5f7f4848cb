"""The health of a peer: if it is alive and at work, by its beacons. No constant decides it.

A peer is suspected when its next beacon, or its next finished computation while it has some to do,
is later than it ever was likely to be (mean + 4 deviations of what was seen), and given up when it
is twice as late. A late beacon that comes after all widens the deadline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from swarmrt.scheduler.estimate import Estimate


class Verdict(StrEnum):
    FINE = "fine"
    SUSPECT = "suspect"
    GONE = "gone"


LEAST_SAMPLES = 3  # of a kind, before it can be late
BURST_S = 0.25  # half of a beat: several hails are answered at once, or nearly


@dataclass(slots=True)
class Health:
    heard_at: float | None = None
    progress_at: float = 0.0
    done: int = 0
    queued: int = 0
    beacons: Estimate = field(default_factory=Estimate)
    progress: Estimate = field(default_factory=Estimate)

    def beacon(self, now: float, queued: int, done: int) -> None:
        """Take its word of how much it has to do, and how much it has done since its start."""
        shortest_s = max(self.beacons.mean_s / 2, BURST_S)
        if self.heard_at is not None and now - self.heard_at > shortest_s:
            self.beacons.add(now - self.heard_at)  # and not a burst that was held up
        self.heard_at = now
        if done != self.done and self.queued and now > self.progress_at:
            self.progress.add(now - self.progress_at)
        if done != self.done or not self.queued:
            self.progress_at = now
        self.done, self.queued = done, queued

    def slept(self, seconds: float) -> None:
        """Forgive the time in which the listener itself stood still: nobody was heard meanwhile."""
        if self.heard_at is not None:
            self.heard_at += seconds
        self.progress_at += seconds

    def lateness(self, now: float) -> float:
        """Return how late it is, as a share of its deadline."""
        if self.heard_at is None:
            return 0.0
        late = 0.0
        if self.beacons.samples >= LEAST_SAMPLES:
            late = (now - self.heard_at) / _deadline_s(self.beacons)
        if self.queued and self.progress.samples >= LEAST_SAMPLES:
            # It is known only by beacons, so it may be one beacon older than it seems.
            deadline_s = _deadline_s(self.progress) + _deadline_s(self.beacons)
            late = max(late, (now - self.progress_at) / deadline_s)
        return late

    @property
    def deadline_s(self) -> float:
        """Return the deadline of the next beacon, as it is learned."""
        return _deadline_s(self.beacons)

    def verdict(self, now: float) -> Verdict:
        late = self.lateness(now)
        if late < 1:
            return Verdict.FINE
        return Verdict.SUSPECT if late < 2 else Verdict.GONE


def _deadline_s(estimate: Estimate) -> float:
    """A thing that always took equally long may still take half as long again."""
    return max(estimate.deadline_s, 1.5 * estimate.mean_s)
