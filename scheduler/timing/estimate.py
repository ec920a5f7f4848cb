"""Smoothed times. What cannot be one, and would spoil a mean for ever, does not count."""

from __future__ import annotations

from dataclasses import dataclass

from swarmrt.ids import SeatId

GAIN = 1 / 8  # of the mean; Jacobson and Karels, "Congestion avoidance and control", appendix A
DEVIATION_GAIN = 1 / 4
DEADLINE_DEVIATIONS = 4
MOST_DOUBLINGS = 6
MOST_DOUBLED_S = 120.0  # or to this, if it is longer: after a pause it is asked again soon enough
MOST_WAITED = 2  # times the patience does a late answer count
LEAST_MEANS = 2  # a stall holds up all answers at once, so before it they seem to be even
LEAST_S = 0.05  # asking again sooner would not help, however fast the answers were
UNKNOWN = 4  # times as patient with somebody as others need, until it is known what he needs
MOST_KNOWN = 1024  # peers of which durations are remembered
LONGEST_S = 1e6  # that anything in a run takes


def is_duration(seconds: float) -> bool:
    """Return whether it may be a duration: others may send anything."""
    return 0 <= seconds <= LONGEST_S


@dataclass(slots=True)
class Estimate:
    """A smoothed mean and mean deviation of a duration, in seconds."""

    mean_s: float = 0.0
    deviation_s: float = 0.0
    samples: int = 0

    def add(self, seconds: float) -> None:
        if not 0 <= seconds <= LONGEST_S:
            return
        if self.samples == 0:
            self.mean_s, self.deviation_s = seconds, seconds / 2
        else:
            error = seconds - self.mean_s
            self.mean_s += GAIN * error
            self.deviation_s += DEVIATION_GAIN * (abs(error) - self.deviation_s)
        self.samples += 1

    def add_answer(self, seconds: float, patience_s: float) -> None:
        """Add the time of something that was waited for so long before it was asked for again. A
        late one counts for at most twice that: whoever stood still for an hour, perhaps this
        process, does not make everybody patient for hours."""
        self.add(min(seconds, MOST_WAITED * patience_s))

    @property
    def deadline_s(self) -> float:
        """Return how long a thing of this kind takes at the most, as far as is known."""
        return self.mean_s + DEADLINE_DEVIATIONS * self.deviation_s

    def patience_s(self, prior_s: float, retries: int = 0) -> float:
        """Return how long to wait before asking again: learned, and doubled by each retry.

        `prior_s` serves until there are samples. Asking again is harmless, so it may be a guess.
        What was learned in other circumstances may be far too short, so doubling comes to minutes.
        """
        known_s = prior_s
        if self.samples:
            known_s = max(self.deadline_s, LEAST_MEANS * self.mean_s, LEAST_S)
        if not retries:
            return known_s
        most_s = max(known_s * 2**MOST_DOUBLINGS, MOST_DOUBLED_S)
        return float(min(known_s * 2.0 ** min(retries, 64), most_s))


class Estimates:
    """Durations of one kind, learned for each peer: what others take says little of one."""

    def __init__(self) -> None:
        self._all = Estimate()
        self._of: dict[SeatId, Estimate] = {}

    @property
    def samples(self) -> int:
        return self._all.samples

    def add_answer(self, peer: SeatId, seconds: float, patience_s: float) -> None:
        """Learn from an answer that was waited for so long before it was asked for again."""
        seconds = min(seconds, MOST_WAITED * patience_s)
        self._all.add(seconds)
        known = self._of.get(peer)
        if known is None:
            known = self._of[peer] = Estimate()
            if len(self._of) > MOST_KNOWN:
                del self._of[next(iter(self._of))]
        known.add(seconds)

    def patience_s(self, peer: SeatId, prior_s: float, retries: int = 0) -> float:
        """Return how long to wait for an answer of this peer; longer while it has given none."""
        known = self._of.get(peer)
        if known is not None:
            return known.patience_s(prior_s, retries)
        known_s = UNKNOWN * self._all.patience_s(prior_s) if self._all.samples else prior_s
        return Estimate().patience_s(known_s, retries)
