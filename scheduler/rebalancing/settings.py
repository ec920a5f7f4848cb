"""The settings: how much must be gained, and how much standby there is to be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """The knobs of rebalancing, all with a default."""

    hysteresis: float = 0.01  # of the swarm's rate that moves must bring together
    move_cost: float = 0.02  # of a mean peer's rate that each of them must bring
    download_cost: float = 0.10  # and more, for each that needs a download
    longest_chain: int = 6  # moves that belong together
    standby_share: float = 1.0  # of the peers that hold a second state
    expected_stay_s: float = 3600.0  # of a peer: a download must pay by then
