"""Rates: how much of something one end may have at once, and how fast that comes back."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

MOST_BUCKETS = 1024  # that are remembered beside those in use

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Rate:
    most: float  # at once
    per_s: float


class Bucket:
    """A token bucket. `now` are seconds on any clock that does not go back."""

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._left = rate.most
        self._counted_at = now

    def take(self, amount: float, now: float) -> bool:
        """Whether that much is left; if so, it is taken."""
        left = min(self.left(now), self.rate.most)
        self._counted_at = now
        self._left = left - amount if amount <= left else left
        return amount <= left

    def change(self, rate: Rate) -> None:
        """Another rate from now on, with all of it there."""
        self.rate, self._left = rate, rate.most

    def left(self, now: float) -> float:
        """What could be taken."""
        earned = (now - self._counted_at) * self.rate.per_s
        return min(self._left + earned, self.rate.most)


class Buckets(Generic[K]):
    """A bucket of the same rate for each key, which is forgotten when it is full again."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: dict[K, Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: K, amount: float, now: float) -> bool:
        """Whether that much is left for this key; if so, it is taken."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MOST_BUCKETS:
                self._forget(now)
            bucket = self._buckets[key] = Bucket(self._rate, now)
        return bucket.take(amount, now)

    def _forget(self, now: float) -> None:
        """Those that are full are as good as new; of the others, the oldest half."""
        full = [k for k, bucket in self._buckets.items() if bucket.left(now) >= self._rate.most]
        for key in full or list(self._buckets)[: MOST_BUCKETS // 2]:
            del self._buckets[key]
