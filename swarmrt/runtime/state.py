"""Snapshots that this process gives to others.

Who asks gets each of them a few times at the most: what is given costs its sender little and this
process a lot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch

from swarmrt.ids import PeerId
from swarmrt.messages import GetState, Message, NoState, StateChunk
from swarmrt.runtime.snapshot import Snapshot

CHUNK_BYTES = 4 << 20
SNAPSHOTS_KEPT = 2  # one being fetched, and a newer one
MAX_WAITING = 256  # requests for a snapshot that is being written
MAX_WAITING_OF_ONE = 8  # by one process, which asks for less before it has the first answer
MOST_TIMES = 4  # that one process is given a snapshot: as often as a torn one is tried again

Send = Callable[[PeerId, Message, Sequence[torch.Tensor]], None]
Asked = tuple[PeerId, GetState, Send]


class Shelf:
    """Snapshots that this process can give to others, now or as soon as they are written."""

    def __init__(self) -> None:
        self._snapshots: dict[tuple[int, int], Snapshot] = {}
        self._promised: dict[tuple[int, int], list[Asked]] = {}
        self._given_bytes: dict[tuple[int, int], Counter[PeerId]] = {}

    def promise(self, stage: int, version: int) -> None:
        """Have whoever asks for a snapshot wait for it: `put` or `break_promise` will be called
        soon."""
        self._promised.setdefault((stage, version), [])

    def put(self, snapshot: Snapshot, keep: int = SNAPSHOTS_KEPT) -> None:
        key = (snapshot.stage, snapshot.version)
        self._snapshots[key] = snapshot
        self._given_bytes.setdefault(key, Counter())
        while len(self._snapshots) > keep:
            gone = next(iter(self._snapshots))
            del self._snapshots[gone], self._given_bytes[gone]
        self.break_promise(*key)

    def break_promise(self, stage: int, version: int) -> None:
        """Answer those that wait for it, by what is here now."""
        for sender, request, send in self._promised.pop((stage, version), []):
            self.answer(sender, request, send)

    def answer(self, sender: PeerId, request: GetState, send: Send) -> None:
        """Send one chunk, or say that it is not here, or not for this sender any more."""
        waiting = self._promised.get((request.stage, request.version))
        if waiting is not None:
            its = sum(other == sender for other, _, _ in waiting)
            if len(waiting) < MAX_WAITING and its < MAX_WAITING_OF_ONE:
                waiting.append((sender, request, send))
                return
        chunk = self._chunk_for(sender, request)
        if chunk is None:
            send(sender, NoState(request.stage, request.version, request.offset_bytes), ())
        else:
            reply, payload = chunk
            send(sender, reply, (payload,))

    def _chunk_for(
        self, sender: PeerId, request: GetState
    ) -> tuple[StateChunk, torch.Tensor] | None:
        snapshot = self._snapshots.get((request.stage, request.version))
        start, length = request.offset_bytes, request.length_bytes
        if snapshot is None or not 0 <= start < len(snapshot.data):
            return None
        given = self._given_bytes[snapshot.stage, snapshot.version]
        if not 0 < length <= CHUNK_BYTES:
            return None
        if given[sender] > MOST_TIMES * (len(snapshot.data) + CHUNK_BYTES):
            return None
        given[sender] += length
        chunk = snapshot.data[start : start + length]
        total_bytes = len(snapshot.data)
        reply = StateChunk(snapshot.stage, snapshot.version, start, total_bytes, snapshot.digest)
        return reply, torch.frombuffer(chunk, dtype=torch.uint8)
