"""Spans of time, and how much of one kind goes on during another."""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[float, float]  # begin and end


def union(spans: Iterable[Span]) -> list[Span]:
    """Return the time of these spans as spans that neither overlap nor touch, in order."""
    joined: list[Span] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


def length(spans: Iterable[Span]) -> float:
    """Return how long they are together, time that several share counted once."""
    return sum(end - begin for begin, end in union(spans))


def shared(some: Iterable[Span], others: Iterable[Span]) -> float:
    """Return how long both kinds go on at once."""
    one, other = union(some), union(others)
    total, i, j = 0.0, 0, 0
    while i < len(one) and j < len(other):
        total += max(0.0, min(one[i][1], other[j][1]) - max(one[i][0], other[j][0]))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return total
