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
from swarmrt.model import muon
from swarmrt.model.optimizer import learning_rate
from swarmrt.model.pieces import Piece

STEPS_AHEAD = 2.0
AT_ONCE = 1 << 18  # values, so that what lies between two operations stays in a cache


def predict(
    config: RunConfig,
    piece: Piece,
    version: int,
    values: Tensor,
    moments: Mapping[str, Tensor],
    count: int,
    *,
    out: Tensor,
) -> None:
    """Write to `out` what flat weights of a version will be after its update, as far as that is
    known; the weights themselves without `optimizer.predict`.

    `count` is of steps. These are all values of a piece, or some of one that has no shape: there
    every operation works value by value and rounds once, and the result does not depend on how
    parameters are cut up.
    """
    at_once = AT_ONCE if piece.shape is None else max(1, values.numel())
    for start in range(0, values.numel(), at_once):
        here = slice(start, start + at_once)
        part = {slot: row[here] for slot, row in moments.items()}
        out[here].copy_(_predicted(config, piece, version, values[here], part, count))


def _predicted(
    config: RunConfig,
    piece: Piece,
    version: int,
    values: Tensor,
    moments: Mapping[str, Tensor],
    count: int,
) -> Tensor:
    optimizer, rate = config.optimizer, STEPS_AHEAD * learning_rate(config, version)
    if not optimizer.predict:
        return values
    kept = 1 - rate * optimizer.weight_decay if piece.is_decayed else 1.0
    match piece.rule:
        case "adamw":
            if count == 0:  # nothing is expected of moments that have seen no gradient
                return values
            first, second = (1 - beta**count for beta in optimizer.betas)
            roots = moments["exp_avg_sq"].sqrt() / math.sqrt(second) + optimizer.eps
            return values * kept - moments["exp_avg"] / roots * (rate / first)
        case "sgd":
            if not optimizer.momentum:
                return values
            return values - moments["momentum_buffer"] * rate
        case "muon":
            assert piece.shape is not None
            if count == 0:
                return values
            momentum = moments["momentum_buffer"].view(piece.shape)
            return values * kept - muon.direction(momentum.clone()).flatten() * rate
