"""Ports of this machine that nobody listens at."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Iterator

from swarmrt.errors import RunError

PORTS = (20000, 32000)  # below those that systems give to outgoing connections


def _candidates() -> Iterator[int]:
    """Ports, each again only after all others: one that was given may not be in use yet."""
    first, end = PORTS
    start = random.randrange(first, end)
    yield from itertools.cycle([*range(start, end), *range(first, start)])


_ports = _candidates()


def free_port() -> int:
    """Return a port that nobody listens at. Raises RunError when none is found."""
    for port in itertools.islice(_ports, PORTS[1] - PORTS[0]):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RunError(f"no port from {PORTS[0]} to {PORTS[1]} is free")
