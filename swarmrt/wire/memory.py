"""Memory of messages that are not whole: a budget for the process, with a share for each peer.

What is counted is what has come, not what was announced: payloads lie in memory that costs nothing
until it is written. Whoever exceeds its share loses its link. When the budget is spent, whoever
holds most of it does, so that one peer cannot take it from the others.
"""

from __future__ import annotations

from collections.abc import Callable

from swarmrt.errors import WireError


class MemoryBudget:
    """The memory that all peers together may hold."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0
        self._accounts: set[Account] = set()

    def open(self, most_bytes: int, evict: Callable[[str], None]) -> Account:
        """An account for one peer; `close` it when the peer is gone. `evict` is told why the peer
        has to go, when it holds most and another one needs room: now or soon."""
        account = Account(self, most_bytes, evict)
        self._accounts.add(account)
        return account

    def close(self, account: Account) -> None:
        """The peer is gone. What it still holds is given back by those who took it."""
        self._accounts.discard(account)

    def make_room(self, asking: Account, size_bytes: int) -> None:
        """Evict whoever holds most. Raises WireError when that is the one who asks."""
        if self.held_bytes + size_bytes <= self.most_bytes:
            return
        largest = max(self._accounts, key=lambda account: account.held_bytes, default=asking)
        reason = f"unfinished messages hold {self.held_bytes} bytes here, most of them its own"
        if largest is asking or largest.held_bytes <= asking.held_bytes:
            raise WireError(reason)
        largest.evict(reason)


class Account:
    """The memory that one peer holds, on all of its connections."""

    def __init__(self, budget: MemoryBudget, most_bytes: int, evict: Callable[[str], None]) -> None:
        self.most_bytes = most_bytes
        self.held_bytes = 0
        self.evict = evict
        self._budget = budget

    def take(self, size_bytes: int) -> None:
        """Take so many bytes. Raises WireError when that is more than the peer's share."""
        if self.held_bytes + size_bytes > self.most_bytes:
            raise WireError(
                f"{self.held_bytes + size_bytes} bytes of unfinished messages; "
                f"a peer may have at most {self.most_bytes}"
            )
        self._budget.make_room(self, size_bytes)
        self.held_bytes += size_bytes
        self._budget.held_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        self.held_bytes -= size_bytes
        self._budget.held_bytes -= size_bytes


def unlimited() -> Account:
    """An account for who is bounded otherwise."""
    return MemoryBudget(1 << 62).open(1 << 62, lambda reason: None)
