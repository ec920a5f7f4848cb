"""The rate and the clipping of the optimizer steps that a replica makes by itself.

They are those of synchronous training that makes as many steps: in one of its steps each replica
has `averaging.local_batch` microbatches. So rates follow the data that all replicas have seen, and
not how often one of them steps; and a bound on the norm is that of such a step's gradient.
"""

from __future__ import annotations

import math

from swarmrt.config import RunConfig
from swarmrt.model.optimizer import learning_rate


class Added:
    """The microbatches that a replica has added to the gradients of a step, and those of them that
    no own step has taken."""

    def __init__(self) -> None:
        self.counted = 0
        self.passed = 0  # of the step's microbatches, whoever had them
        self.waiting: list[int] = []  # indices of those that no own step has taken

    def add(self, index: int) -> None:
        self.counted += 1
        self.passed = max(self.passed, index + 1)
        self.waiting.append(index)

    @property
    def replicas(self) -> float:
        """Return how many replicas of this one's share there would be, as far as it is known."""
        return self.passed / self.counted if self.counted else 1.0


def rate_of(config: RunConfig, step: int, added: Added) -> float:
    """Return the rate of an own step that takes what is waiting. What is left over at the end of a
    step weighs as much as what went before."""
    first, last, whole = min(added.waiting), max(added.waiting), config.batch.microbatches
    rate = learning_rate(config, step + first / whole, (last + 1 - first) / whole)
    if len(added.waiting) == added.counted:
        return rate
    return rate * min(1.0, len(added.waiting) / config.averaging.local_batch)


def bound_of(config: RunConfig, count: int, replicas: float) -> float:
    """Return the bound on the norm of this stage's mean gradient of so many microbatches; 0 for
    none.

    The norm of a mean of fewer is longer, by noise, with the root of how many fewer they are. That
    of the whole model is longer than a stage's, with the root of their number.
    """
    batch = min(replicas * config.averaging.local_batch, config.batch.microbatches)
    longer = math.sqrt(max(1.0, batch / count) / config.num_stages)
    return config.optimizer.clip_norm * longer
