"""The parts that a stage's gradient, or its state, is cut into when its replicas share work."""

from __future__ import annotations

LEAST_EARLY, MOST_EARLY = 64, 256  # parts of rounds that are not known yet: at most 1 GiB
MAX_PART_BYTES = 4 << 20  # many in a gradient worth cutting, and each is still many frames


def num_parts(members: int, size_bytes: int) -> int:
    """Return how many parts there are: as many for each member, and none of them too long."""
    return members * max(1, -(-size_bytes // (members * MAX_PART_BYTES)))


def most_early(gradient_bytes: int) -> int:
    """Return how many parts of rounds that are not known yet are kept: what comes to a member in
    one, slices of its own parts and the sums of the others'."""
    return min(MOST_EARLY, LEAST_EARLY + 2 * -(-gradient_bytes // MAX_PART_BYTES))


def early_bytes(gradient_bytes: int, state_bytes: int) -> int:
    """Return what these take at the most, for a stage whose gradient, and whose parameters and
    moments, have so many bytes."""
    return most_early(gradient_bytes) * min(MAX_PART_BYTES, max(gradient_bytes, state_bytes))
