"""The parts that a stage's gradient, or its state, is cut into when its replicas share work."""

from __future__ import annotations

MAX_PART_BYTES = 4 << 20  # many in a gradient worth cutting, and each is still many frames


def num_parts(members: int, size_bytes: int) -> int:
    """Return how many parts there are: as many for each member, and none of them too long."""
    return members * max(1, -(-size_bytes // (members * MAX_PART_BYTES)))
