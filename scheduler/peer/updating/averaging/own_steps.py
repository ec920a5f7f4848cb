"""The size of the optimizer steps that a replica makes by itself, so that few gradients are late.

A gradient is late when its backward ran on weights that are no longer the replica's newest. An own
step makes those late that are between forward and backward as it is made, and so does the next
version. So an own step is made of as many microbatches as bear that, and none is made any more
where too few are to come to bear what the end of the step costs: the round takes what is left. By
that a replica makes at least one own step in a step.
"""

from __future__ import annotations

import math

SMOOTHING = 1 / 32  # of one number of what is between, as a backward begins
AT_THE_END = 2  # times that gradients become late: by what the round takes, and the next version


def own_step(
    local_batch: int, most_late: float, between: int, added: int, passed: int, microbatches: int
) -> int:
    """Return of how many microbatches an own step is to be made, or 0 for none any more.

    `between` are those that are between forward and backward here. In a step of `microbatches`
    about `passed` are added somewhere, `added` of them here.
    """
    bears = math.ceil(between / most_late) if most_late < 1 else 0
    to_come = added * (microbatches - passed) // max(1, passed)
    if to_come < max(-(-local_batch // 2), AT_THE_END * bears):
        return 0
    return max(local_batch, bears)


class Between:
    """The number of microbatches between forward and backward, now or as a rule: whichever is more.

    Own steps come where there are few, but the end of a step comes anyhow.
    """

    def __init__(self) -> None:
        self._mean = 0.0

    def seen(self, now: int) -> int:
        """Take what there is now, and return with how many to reckon."""
        self._mean += SMOOTHING * (now - self._mean)
        return max(now, math.ceil(self._mean))
