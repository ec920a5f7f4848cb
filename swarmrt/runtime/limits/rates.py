"""Rates: how much of something one end may have at once, and how fast that comes back."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from swarmrt.errors import UsageError

BITS = {"k": 1e3, "m": 1e6, "g": 1e9}
LEAST_BITS, MOST_BITS = 1e5, 1e12  # a second, of a link
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
        self.left = rate.most
        self._counted_at = now

    def take(self, amount: float, now: float) -> bool:
        """Take that much, if it is left; return whether it was."""
        self.fill(now)
        if amount > self.left:
            return False
        self.left -= amount
        return True

    def fill(self, now: float) -> None:
        """Add what has come back."""
        self.left += (now - self._counted_at) * self.rate.per_s
        if self.left > self.rate.most:
            self.left = self.rate.most
        self._counted_at = now

    def change(self, rate: Rate) -> None:
        """Fill at another rate from now on, beginning with a full bucket."""
        self.rate, self.left = rate, rate.most


class Buckets(Generic[K]):
    """A bucket of the same rate for each key, which is forgotten when it is full again."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: dict[K, Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: K, amount: float, now: float) -> bool:
        """Take that much of this key's bucket, if it is left; return whether it was."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MOST_BUCKETS:
                self._forget(now)
            bucket = self._buckets[key] = Bucket(self._rate, now)
        return bucket.take(amount, now)

    def _forget(self, now: float) -> None:
        """Forget those that are full, which are as good as new; of the others, the oldest half."""
        for bucket in self._buckets.values():
            bucket.fill(now)
        full = [k for k, bucket in self._buckets.items() if bucket.left >= self._rate.most]
        for key in full or list(self._buckets)[: MOST_BUCKETS // 2]:
            del self._buckets[key]


def parse_rate(option: str, text: str) -> float:
    """Read `20mbit`, as tc does, into bytes a second. Raises UsageError, which names the option."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,20})?)([kmg])bit", text.lower())
    bits = float(match[1]) * BITS[match[2]] if match else 0.0
    if not LEAST_BITS <= bits <= MOST_BITS:
        raise UsageError(
            f"{option} {text}: write bits a second like 800kbit, 50mbit or 1gbit, at least 100kbit"
        )
    return bits / 8
