"""The intervals that grow with a swarm, so that its trainer handles at most some hundred beacons a
second, reads as many records, and is offered less.

Rules:
- A small swarm's intervals are constant. They grow once it is so large that this would be more.
- Whoever beacons about as often as is wanted is left in peace: a swarm that grows by a peer is no
  reason to tell all of them.
- Whoever is told to beacon does so within bounds, whatever it is told.
"""

from __future__ import annotations

import zlib

from swarmrt.scheduler.timing.times import BEACON_S, OFFERS_S

MOST_BEACONS_PER_S = 200.0
MOST_OFFERS_PER_S = 50.0
MOST_RECORDS_PER_S = 200.0  # that one process reads
MOST_BEACON_S, MOST_OFFERS_S = 60.0, 300.0  # whatever anybody is told
MOST_UNREAD_S = 60.0  # however many records somebody writes
TOO_OFTEN, TOO_RARELY = 1.25, 2.0  # times as often as is wanted, before somebody is told
RENEWALS = 3  # of a record in its life: two may be late


def beacon_s(members: int, most_per_s: float = MOST_BEACONS_PER_S) -> float:
    """Return what is between two beacons of one seat, in a swarm of so many."""
    return beacon_within_bounds(members / most_per_s)


def offers_s(processes: int) -> float:
    """Return what is between two offers of one process, beside so many others."""
    return offers_within_bounds(processes / MOST_OFFERS_PER_S)


def beacon_within_bounds(told_s: float) -> float:
    """Return the interval that is obeyed: nobody is made to flood, nor to fall silent."""
    return min(max(told_s, BEACON_S), MOST_BEACON_S)


def offers_within_bounds(told_s: float) -> float:
    """Return the same for offers."""
    return min(max(told_s, OFFERS_S), MOST_OFFERS_S)


def is_off(every_s: float, wanted_s: float) -> bool:
    """Return whether an interval is so far from what is wanted that it has to be told."""
    return every_s * TOO_OFTEN < wanted_s or every_s > TOO_RARELY * wanted_s


def directory_s(records: int, least_s: float) -> float:
    """Return what is between two readings of so many records by one process."""
    return max(least_s, min(records / MOST_RECORDS_PER_S, MOST_UNREAD_S))


def phase(name: str) -> float:
    """Return the share of its first interval that somebody of this name waits, in (0, 1]: of many
    that are told at once each beacons at another time."""
    return (zlib.crc32(name.encode()) + 1) / (1 << 32)


def renew_s(record_ttl_s: float, beacon_s: float = BEACON_S) -> float:
    """Return what is between two renewals of a record, by who beacons so often."""
    return max(record_ttl_s / RENEWALS, beacon_s)


def record_life_s(record_ttl_s: float, beacon_s: float = BEACON_S) -> float:
    """Return how long such a record counts after its newest renewal."""
    return max(record_ttl_s, RENEWALS * beacon_s)
