"""The intervals that grow with a swarm, so that nobody in it hears more than some hundred things a
second of everybody."""

from __future__ import annotations

from swarmrt.scheduler.timing.times import BEACON_S

MOST_BEACONS_PER_S = 200.0


def beacon_s(members: int) -> float:
    """Return what is between two beacons of one seat, in a swarm of so many."""
    return max(BEACON_S, members / MOST_BEACONS_PER_S)
