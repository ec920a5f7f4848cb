"""The weights that are expected of the version that a step will update.

With a staleness of 1 a step is computed while the one before it is still reduced: on weights that
lack an update. What that update will be is known but for its gradient, so the one that the moments
expect stands for it (SpecTrain, Chen et al. 2018, for momentum; XPipe, Guan et al. 2019, for Adam).
It is a function of one version's state: whoever holds that makes the same prediction, and nothing
more is sent or kept for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from swarmrt.config import RunConfig
from swarmrt.model.optimizer import learning_rate

STEPS_AHEAD = 2.0
AT_ONCE = 1 << 18  # values, so that what lies between two operations stays in a cache


def predict(
    config: RunConfig,
    version: int,
    values: Tensor,
    moments: Mapping[str, Tensor],
    count: int,
    *,
    decayed: bool,
    out: Tensor,
) -> None:
    """Write to `out` what flat weights of a version will be after its update, as far as that is
    known; the weights themselves without `optimizer.predict`.

    `count` is AdamW's of steps. Every operation works value by value and rounds once: the result
    does not depend on how parameters are cut up.
    """
    for start in range(0, values.numel(), AT_ONCE):
        piece = slice(start, start + AT_ONCE)
        part = {slot: row[piece] for slot, row in moments.items()}
        out[piece].copy_(_predicted(config, version, values[piece], part, count, decayed))


def _predicted(
    config: RunConfig,
    version: int,
    values: Tensor,
    moments: Mapping[str, Tensor],
    count: int,
    decayed: bool,
) -> Tensor:
    optimizer, rate = config.optimizer, STEPS_AHEAD * learning_rate(config, version)
    if not optimizer.predict:
        return values
    match optimizer.kind:
        case "adamw":
            if count == 0:  # nothing is expected of moments that have seen no gradient
                return values
            first, second = (1 - beta**count for beta in optimizer.betas)
            roots = moments["exp_avg_sq"].sqrt() / math.sqrt(second) + optimizer.eps
            kept = 1 - rate * optimizer.weight_decay if decayed else 1.0
            return values * kept - moments["exp_avg"] / roots * (rate / first)
        case "sgd":
            if not optimizer.momentum:
                return values
            return values - moments["momentum_buffer"] * rate
