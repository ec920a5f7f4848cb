"""The weights of a simulated peer: the history of what was applied, and snapshots of it."""

from __future__ import annotations

from collections import Counter

from swarmrt.sim.swarm.fetching import History, Update, digest_of

SNAPSHOTS_KEPT = 2


class State:
    def __init__(self) -> None:
        self.history: History = ()
        self.snapshots: dict[int, History] = {}
        self.rounding = ""  # by its hardware: another one makes other weights of a gradient

    @property
    def version(self) -> int:
        return len(self.history)

    @property
    def digest(self) -> str:
        return digest_of(self.history)

    def keep_snapshot(self) -> None:
        self.snapshots[self.version] = self.history
        while len(self.snapshots) > SNAPSHOTS_KEPT:
            del self.snapshots[min(self.snapshots)]

    def rounded(self, gradient: Counter[str]) -> Update:
        """Return what this peer's arithmetic makes of a gradient."""
        return tuple((name + self.rounding, halves) for name, halves in update_of(gradient))


def update_of(gradient: Counter[str]) -> Update:
    """Return what exact arithmetic makes of a gradient."""
    return tuple(sorted(gradient.items()))
