"""The rate and the clipping of the optimizer steps that a replica makes by itself.

They are those of synchronous training that makes as many steps: in one of its steps each replica
has `averaging.local_batch` microbatches. So rates follow the data that all replicas have seen, and
not how often one of them steps; and a bound on the norm is that of such a step's gradient.

Steps of more microbatches are fewer, and go further: with the root of how many more they are where
an optimizer divides by the root of the mean square (Malladi et al. 2022, "On the SDEs and scaling
rules for adaptive gradient algorithms"), and in proportion with SGD. So stages whose own steps are
of unlike length learn alike.

The same division makes an own step shorter in what all replicas have in common than one of all
their microbatches would be: by the root of their number where the gradient is all noise, and not at
all where there is none. Two replicas do best at the rate as it is; with more, own steps go further
by the root of how many times two they are (docs/averaging.md has what was measured, with four).
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


def rate_of(config: RunConfig, step: int, added: Added, replicas: float) -> float:
    """Return the rate of an own step of one of so many replicas that takes what is waiting. What is
    left over at the end of a step, and is less, weighs as much as what went before."""
    first, last, whole = min(added.waiting), max(added.waiting), config.batch.microbatches
    rate = learning_rate(config, step + first / whole, (last + 1 - first) / whole)
    divides = config.optimizer.kind != "sgd"  # by the root of the mean square, or much like it
    if divides:
        rate *= math.sqrt(max(1.0, replicas / 2))
    longer = len(added.waiting) / config.averaging.local_batch
    if longer > 1.0:
        return rate * (math.sqrt(longer) if divides else longer)
    return rate if len(added.waiting) == added.counted else rate * longer


def bound_of(config: RunConfig, count: int, replicas: float) -> float:
    """Return the bound on the norm of this stage's mean gradient of so many microbatches; 0 for
    none.

    The norm of a mean of fewer is longer, by noise, with the root of how many fewer they are. That
    of the whole model is longer than a stage's, with the root of their number.
    """
    each = max(count, config.averaging.local_batch)
    batch = min(replicas * each, config.batch.microbatches)
    longer = math.sqrt(max(1.0, batch / count) / config.num_stages)
    return config.optimizer.clip_norm * longer
