"""The chunks of a file that is fetched: which have landed, and by whom, and which are to be asked
for."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from swarmrt.ids import PeerId


class Chunks:
    def __init__(self, size_bytes: int, chunk_bytes: int) -> None:
        self.size_bytes, self.chunk_bytes = size_bytes, chunk_bytes
        self.given: dict[int, PeerId] = {}  # offset of each chunk that has landed → by whom
        self.writing: dict[int, PeerId | None] = {}  # None: it is not wanted any more
        self._unasked: list[int] = []  # a heap; what is here, or owed, is passed over
        self.keep_only(set())

    @property
    def are_all_here(self) -> bool:
        return len(self.given) == len(range(0, self.size_bytes, self.chunk_bytes))

    @property
    def missing_bytes(self) -> int:
        """Return how much has not landed yet."""
        return self.size_bytes - sum(map(self.length, self.given))

    def length(self, offset: int) -> int:
        return min(self.chunk_bytes, self.size_bytes - offset)

    def is_here(self, offset: int) -> bool:
        """Return whether it has come: it is nobody's turn to give it."""
        return offset in self.given or offset in self.writing

    def written(self, offset: int) -> bool:
        """Hear that one is where it belongs; return whether it is still wanted."""
        peer = self.writing.pop(offset)
        if peer is not None:
            self.given[offset] = peer
        return peer is not None

    def keep_only(self, givers: set[PeerId]) -> None:
        """Forget what has landed, but for what these donors have given."""
        self.given = {offset: peer for offset, peer in self.given.items() if peer in givers}
        for offset, peer in self.writing.items():
            self.writing[offset] = peer if peer in givers else None
        offsets = range(0, self.size_bytes, self.chunk_bytes)
        self._unasked = [offset for offset in offsets if offset not in self.given]

    def to_be_asked(self, offsets: Iterable[int]) -> None:
        """Hear that nobody is waited for who owes these."""
        for offset in offsets:
            heapq.heappush(self._unasked, offset)

    def next_unasked(self, is_owed: Callable[[int], bool]) -> int | None:
        """Return the first that is to be asked for; None when there is none, or it has to be
        written over what is not wanted any more, and is being written."""
        while self._unasked:
            offset = self._unasked[0]
            is_coming = offset in self.given or self.writing.get(offset) is not None
            if not is_coming and not is_owed(offset):
                return None if offset in self.writing else offset
            heapq.heappop(self._unasked)
        return None

    def validate(self, owed: set[int]) -> None:
        """Check that each is here, or coming, or will be asked for."""
        known = {*self.given, *self.writing, *self._unasked, *owed}
        assert known == set(range(0, self.size_bytes, self.chunk_bytes))
        assert not self.given.keys() & self.writing.keys()
