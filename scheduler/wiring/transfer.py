"""The seconds that a byte takes to a replica.

How long an answer takes is latency for the most part, which costs no throughput: while one frame is
on its way another one can be. So a link is measured by pairs (Keshav 1991, "A control-theoretic
approach to flow control", packet pair): of two frames that went one soon after the other, what lies
between their answers is what the second one took. What one frame took alone bounds it from above,
and what was waited for in vain says that it takes at least as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from swarmrt.scheduler.timing.estimate import Estimate

SOON = 1 / 2  # of what lies between two answers: two frames that went so soon are a pair


@dataclass(slots=True)
class Transfer:
    s_per_byte: Estimate = field(default_factory=Estimate)
    pushed_at: float = -math.inf  # the frame that was answered last
    answered_at: float = -math.inf

    def answered(self, frame_bytes: int, pushed_at: float, now: float) -> None:
        """Take the answer to a frame that was pushed then."""
        if frame_bytes <= 0:
            return
        apart_s = now - self.answered_at
        waited = pushed_at < self.answered_at  # for the one before it
        if waited and 0 <= pushed_at - self.pushed_at < SOON * apart_s:
            self.s_per_byte.add(apart_s / frame_bytes)
        else:
            most = max(0.0, now - pushed_at) / frame_bytes
            self.s_per_byte.mean_s = min(self.s_per_byte.mean_s, most)
        self.pushed_at, self.answered_at = pushed_at, now

    def takes(self, frame_bytes: int, least_s: float) -> None:
        """Take note that a frame takes at least so long: it was waited for in vain."""
        if frame_bytes > 0:
            self.s_per_byte.mean_s = max(self.s_per_byte.mean_s, least_s / frame_bytes)
