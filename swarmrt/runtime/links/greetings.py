"""Connections that have come in, and have not proved yet who is at their other end.

Only so many may be under way at a time. While there is room anybody may have some. When there is
none, the oldest one of whoever has most gives its place to the newest: who opens many and says
nothing on them is in nobody's way but his own.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Generic, TypeVar

T = TypeVar("T")

NETWORK_BITS = 56  # of an IPv6 address: what one household is given


class Greetings(Generic[T]):
    """The connections that are under way, by where they come from."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._sources: dict[T, str] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._sources)

    def add(self, greeting: T, host: str) -> T | None:
        """Count one more from this IP address. Returns the one that has to end for it, if any."""
        crowded = self._most_crowded() if len(self._sources) >= self._most else None
        if crowded is not None:
            del self._sources[crowded]
        self._sources[greeting] = source_of(host)
        return crowded

    def done(self, greeting: T) -> None:
        """Take note that a connection is no longer under way. May be called again."""
        self._sources.pop(greeting, None)

    def _most_crowded(self) -> T:
        """The oldest one of the source that has most; of the oldest source, when some are equal."""
        numbers = Counter(self._sources.values())
        most = max(numbers.values())
        return next(g for g, source in self._sources.items() if numbers[source] == most)


def source_of(host: str) -> str:
    """Return whom connections from an IP address are counted for: one machine, or one household."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, NETWORK_BITS), strict=False))
        address = address.ipv4_mapped
    return "127.0.0.0/8" if address.is_loopback else str(address)
