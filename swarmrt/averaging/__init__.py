"""Strategies of averaging: what the replicas of a stage send each other, and what they make of it.

A strategy of your own is a subclass of `Strategy`, named "pkg.module:Class" in the configuration.
"""

from __future__ import annotations

from swarmrt.averaging.built_in import BUILT_IN
from swarmrt.averaging.strategy import Slots, Strategy

__all__ = ["BUILT_IN", "Slots", "Strategy"]
