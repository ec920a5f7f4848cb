"""The regret of a swarm: what it falls short of oracle b by, and what for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cause = Literal["detect", "decide", "download", "imbalance", "restart", "traffic"]
CAUSES: tuple[Cause, ...] = ("detect", "decide", "download", "imbalance", "restart")
"""The causes that are seen where nothing flows."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time between two changes, and what holds in it."""

    oracle: float  # the rate of oracle b
    rate: float
    by_switching: float  # the best rate that switches among states that are held would make
    is_restarting: bool  # a stage's state was lost, or what was lost is done again
    is_unnoticed: bool  # somebody's end is not known yet
    is_deciding: bool  # a decision is on its way
    is_downloading: bool  # somebody loads a state in order to serve it


def causes_of(moment: Moment) -> dict[Cause, float]:
    """Share out what is lost a second. What is more than the oracle's counts as imbalance."""
    lost = moment.oracle - moment.rate
    if lost <= 0:
        return {"imbalance": lost} if lost else {}
    if moment.is_restarting:
        return {"restart": lost}
    switching = max(0.0, min(lost, moment.by_switching - moment.rate))
    otherwise: Cause = (
        "detect" if moment.is_unnoticed else "decide" if moment.is_deciding else "imbalance"
    )
    shared: dict[Cause, float] = {otherwise: switching}
    rest: Cause = "download" if moment.is_downloading else otherwise
    shared[rest] = shared.get(rest, 0.0) + lost - switching
    return shared
