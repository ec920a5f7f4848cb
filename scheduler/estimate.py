"""Smoothed times. What cannot be one, and would spoil a mean for ever, does not count."""

from __future__ import annotations

from dataclasses import dataclass

GAIN = 1 / 8  # of the mean; Jacobson and Karels, "Congestion avoidance and control", appendix A
DEVIATION_GAIN = 1 / 4
DEADLINE_DEVIATIONS = 4
MAX_DOUBLINGS = 6
LEAST_MEANS = 2  # a stall holds up all answers at once, so before it they seem to be even
LEAST_S = 0.05  # asking again sooner would not help, however fast the answers were
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
        if not is_duration(seconds):
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
        self.add(min(seconds, 2 * patience_s))

    @property
    def deadline_s(self) -> float:
        """Return how long a thing of this kind takes at the most, as far as is known."""
        return self.mean_s + DEADLINE_DEVIATIONS * self.deviation_s

    def patience_s(self, prior_s: float, retries: int = 0) -> float:
        """Return how long to wait before asking again: learned, and doubled by each retry.

        `prior_s` serves until there are samples. Asking again is harmless, so it may be a guess.
        """
        learned_s = max(self.deadline_s, LEAST_MEANS * self.mean_s, LEAST_S)
        known_s = learned_s if self.samples else prior_s
        return float(known_s * 2 ** min(retries, MAX_DOUBLINGS))
