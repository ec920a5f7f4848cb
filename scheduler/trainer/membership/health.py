"""The health of a peer: if it is alive and at work, by its beacons. No constant decides it.

A peer is suspected when its next beacon, or its next finished computation while it has some to do,
is later than it ever was likely to be (mean + 4 deviations of what was seen). That costs next to
nothing, so it comes early. It is given up at twice its deadline, which leaves room for what happens
to everybody now and then: two beacons that are lost, a radio that stalls for four of them, a
computation that takes six times as long. A late beacon that comes after all widens the deadline.

Computations are counted one by one, however many of them lie between two beacons.

In a large swarm beacons are rarer. Each says within which time the next one follows, and gaps are
learned as shares of that: so nobody is late because the interval grows, is on its way, or shrinks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from swarmrt.scheduler.timing.estimate import Estimate
from swarmrt.scheduler.timing.times import BEACON_S, BURST_S


class Verdict(StrEnum):
    FINE = "fine"
    SUSPECT = "suspect"
    GONE = "gone"


LEAST_SAMPLES = 3  # of a kind, before it can be late
EARLY = 1.5  # of a mean: a thing that always took equally long may still take half as long again
LEAST_BEATS = 3  # in a deadline: two may be lost, and at twice it a radio has stalled for four
LEAST_COMPUTATIONS = 4  # in a deadline: at twice it, one has taken eight times as long
MOST_DEADLINES = 4  # that a gap counts for: one long absence does not make patient for ever


@dataclass(slots=True)
class Health:
    heard_at: float | None = None
    progress_at: float = 0.0
    done: int = 0
    queued: int = 0
    every_s: float = BEACON_S  # within which the next beacon follows
    is_asked: bool = False  # for one, and has not answered
    beacons: Estimate = field(default_factory=Estimate)  # as if one followed in BEACON_S
    progress: Estimate = field(default_factory=Estimate)  # of one computation

    def beacon(self, now: float, queued: int, done: int, every_s: float = BEACON_S) -> None:
        """Take down how much it has to do, how much it has done since its start, and within which
        time its next beacon follows."""
        shortest_s = self._stretch * max(self.beacons.mean_s / 2, BURST_S)
        if self.heard_at is not None and now - self.heard_at > shortest_s:
            self._add_gap((now - self.heard_at) / self._stretch)  # and not a burst, held up
        self.heard_at, self.every_s = now, every_s
        if done != self.done and self.queued and now > self.progress_at and not self.is_asked:
            self.progress.add((now - self.progress_at) / max(1, done - self.done))
        if done != self.done or not self.queued:
            self.progress_at = now
        self.done, self.queued, self.is_asked = done, queued, False

    def asked(self, now: float) -> None:
        """Judge it from now on as in a small swarm: it was asked to beacon as often."""
        if self.is_rarely_heard and self.heard_at is not None:
            self.heard_at = self.progress_at = now
            self.every_s, self.is_asked = BEACON_S, True

    def _add_gap(self, seconds: float) -> None:
        known = self.beacons.samples >= LEAST_SAMPLES
        self.beacons.add(min(seconds, MOST_DEADLINES * self.patience_s) if known else seconds)

    def slept(self, seconds: float, now: float) -> None:
        """Forgive a silence in which the listener itself stood still. It ends now, at the latest:
        whoever was heard meanwhile gets no credit for later."""
        if self.heard_at is not None:
            self.heard_at = max(self.heard_at, min(now, self.heard_at + seconds))
        self.progress_at = max(self.progress_at, min(now, self.progress_at + seconds))

    @property
    def _stretch(self) -> float:
        """How many times as rarely it beacons as in a small swarm."""
        return self.every_s / BEACON_S

    @property
    def is_rarely_heard(self) -> bool:
        """Return whether it beacons less often than in a small swarm."""
        return self.every_s > BEACON_S

    @property
    def lag_s(self) -> float:
        """Return by how much longer than in a small swarm it may take until a beacon tells what has
        become of it."""
        return self.every_s - BEACON_S

    @property
    def deadline_s(self) -> float:
        """The time within which the next beacon is due, as it is learned."""
        return self._stretch * self.patience_s

    @property
    def patience_s(self) -> float:
        """The time within which the next beacon would be due if it beaconed as often as in a small
        swarm: nothing else is waited for any longer because beacons are rare."""
        return _deadline_s(self.beacons, LEAST_BEATS)

    def verdict(self, now: float, most_s: float = 0.0) -> Verdict:
        """Judge it. A computation takes `most_s` at most, where it has shown no other time; 0 if
        that is not known."""
        if self._lateness(now, LEAST_BEATS, most_s) >= 2:
            return Verdict.GONE
        is_fine = self._lateness(now, EARLY, most_s) < 1
        return Verdict.FINE if is_fine else Verdict.SUSPECT

    def is_silent(self, now: float) -> bool:
        """Return whether it would be given up for its beacons alone."""
        if self.heard_at is None or self.beacons.samples < LEAST_SAMPLES:
            return False
        return (now - self.heard_at) / self.deadline_s >= 2

    def misses_beats(self, now: float) -> bool:
        """Return whether its last beacon is two beats old, or older than any was likely to be."""
        if self.heard_at is None:
            return True
        longest_s = max(4 * BURST_S, _deadline_s(self.beacons, EARLY))
        return now - self.heard_at > self._stretch * longest_s

    def late_s(self, now: float) -> float:
        """Return for how long nothing has been heard of it, or of its progress."""
        if self.heard_at is None:
            return 0.0
        return now - min(self.heard_at, self.progress_at if self.queued else self.heard_at)

    def is_stuck_since(self, since: float) -> bool:
        """Return whether it has had something to do since then, and has finished nothing."""
        return bool(self.queued) and self.progress_at <= since

    def _lateness(self, now: float, beats: float, most_s: float) -> float:
        """Return how late it is, as a share of its deadline."""
        if self.heard_at is None:
            return 0.0
        late = 0.0
        beat_s = self._stretch * _deadline_s(self.beacons, beats)
        if self.is_rarely_heard:  # its next word is due then, however few there were
            beat_s = max(beat_s, beats * self.every_s)
        if self.beacons.samples >= LEAST_SAMPLES:
            late = (now - self.heard_at) / beat_s
        computing_s = LEAST_COMPUTATIONS * most_s
        if self.progress.samples >= LEAST_SAMPLES:
            computing_s = _deadline_s(self.progress, LEAST_COMPUTATIONS)
        if self.queued and computing_s:
            # It is known only by beacons, so it may be one beacon older than it seems.
            late = max(late, (now - self.progress_at) / (computing_s + beat_s))
        return late


def _deadline_s(estimate: Estimate, least_means: float) -> float:
    return max(estimate.deadline_s, least_means * estimate.mean_s)
