"""Smoothed times and the trainer's credit window."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

GAIN = 1 / 8  # of the mean; Jacobson and Karels, "Congestion avoidance and control", appendix A
DEVIATION_GAIN = 1 / 4
DEADLINE_DEVIATIONS = 4
MAX_DOUBLINGS = 6
LEAST_S = 0.05  # asking again sooner would not help, however fast the answers were


@dataclass(slots=True)
class Estimate:
    """A smoothed mean and mean deviation of a duration, in seconds."""

    mean_s: float = 0.0
    deviation_s: float = 0.0
    samples: int = 0

    def add(self, seconds: float) -> None:
        if self.samples == 0:
            self.mean_s, self.deviation_s = seconds, seconds / 2
        else:
            error = seconds - self.mean_s
            self.mean_s += GAIN * error
            self.deviation_s += DEVIATION_GAIN * (abs(error) - self.deviation_s)
        self.samples += 1

    @property
    def deadline_s(self) -> float:
        """How long a thing of this kind takes at the most, as far as is known."""
        return self.mean_s + DEADLINE_DEVIATIONS * self.deviation_s

    def patience_s(self, prior_s: float, retries: int = 0) -> float:
        """How long to wait before asking again: learned, and doubled by each retry.

        `prior_s` serves until there are samples. Asking again is harmless, so it may be a guess.
        """
        known_s = max(self.deadline_s, LEAST_S) if self.samples else prior_s
        return float(known_s * 2 ** min(retries, MAX_DOUBLINGS))


class Window:
    """How many microbatches the trainer keeps in flight.

    The bandwidth-delay product of the pipeline: the best seen rate times the least seen latency,
    plus slack so that no stage runs dry (as in BBR, Cardwell et al. 2016, for packets).
    """

    GAIN = 1.5  # slack over the product; the pipeline has several service points, not one
    MEMORY = 64  # microbatches whose latency and rate count

    def __init__(self, least: int) -> None:
        self._least = least
        self._latencies_s: deque[float] = deque(maxlen=self.MEMORY)
        self._finished_at: deque[float] = deque(maxlen=self.MEMORY)
        self.size = least

    def finished(self, latency_s: float, now: float) -> None:
        """A microbatch that was dispatched `latency_s` ago is done."""
        self._latencies_s.append(latency_s)
        self._finished_at.append(now)
        span_s = now - self._finished_at[0]
        if len(self._finished_at) < 2 or span_s <= 0:
            return
        rate_per_s = (len(self._finished_at) - 1) / span_s
        product = rate_per_s * min(self._latencies_s)
        self.size = max(self._least, math.ceil(self.GAIN * product) + 1)

    def pause(self) -> None:
        """The pipeline was drained: the time until the next one is not its rate."""
        self._finished_at.clear()
