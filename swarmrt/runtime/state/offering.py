"""Snapshots that this process gives to others.

Who asks gets each of them a few times at the most: what is given costs its sender little and this
process a lot.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from swarmrt.ids import PeerId
from swarmrt.messages import GetState, Message, NoState, StateChunk
from swarmrt.model.sizing import MOST_SNAPSHOTS
from swarmrt.runtime.state.snapshot import Snapshot

CHUNK_BYTES = 4 << 20
LEASE_S = 120.0  # for which one is kept after it was asked for: a slow donor's link may stand still
MAX_WAITING = 256  # requests for a snapshot that is being written
MAX_WAITING_OF_ONE = 8  # by one process, which asks for less before it has the first answer
MOST_TIMES = 4  # that one process is given a snapshot: as often as a torn one is tried again

Send = Callable[[PeerId, Message, Sequence[torch.Tensor]], None]
Asked = tuple[PeerId, GetState, Send]


@dataclass
class _Kept:
    snapshot: Snapshot
    asked_at: float
    stays: bool  # it lies on the disk, and is wanted as long as there is no newer one
    given_bytes: Counter[PeerId] = field(default_factory=Counter)


class Shelf:
    """Snapshots that this process can give to others, now or as soon as they are written.

    One that is being fetched is leased: it stays until nobody has asked for it for a while. What
    nobody asks for is let go, as each takes the memory of a whole state.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[tuple[int, int], _Kept] = {}
        self._promised: dict[tuple[int, int], list[Asked]] = {}

    def promise(self, stage: int, version: int) -> None:
        """Let those wait who ask for it: it will be `put` soon, or `break_promise` be called. Older
        ones make room for it."""
        self._promised.setdefault((stage, version), [])
        self._keep(MOST_SNAPSHOTS - len(self._promised))

    def has(self, stage: int, version: int) -> bool:
        """Return whether it is here, or promised."""
        return (stage, version) in self._kept or (stage, version) in self._promised

    def put(self, snapshot: Snapshot) -> None:
        """Give it to whoever asks, as long as somebody does."""
        self._kept.pop((snapshot.stage, snapshot.version), None)
        self._keep(MOST_SNAPSHOTS - 1)
        self._put(snapshot, stays=False)

    def offer(self, snapshot: Snapshot) -> None:
        """Give it to whoever asks, in the place of the stage's older ones."""
        for key, kept in list(self._kept.items()):
            if kept.stays and key[0] == snapshot.stage:
                del self._kept[key]
        self._put(snapshot, stays=True)

    def _put(self, snapshot: Snapshot, *, stays: bool) -> None:
        key = (snapshot.stage, snapshot.version)
        self._kept.pop(key, None)  # the newest is the last one
        self._kept[key] = _Kept(snapshot, self._clock(), stays)
        self.break_promise(*key)

    def _keep(self, most: int) -> None:
        """Let go of those that nobody has asked for for longest, but for so many. They are two
        being fetched and a newer one, as a rule."""
        loose = [key for key, kept in self._kept.items() if not kept.stays]
        while len(loose) > max(0, most):
            longest = min(loose, key=lambda key: self._kept[key].asked_at)
            loose.remove(longest)
            del self._kept[longest]

    def tidy(self) -> None:
        """Let go of what nobody has asked for lately."""
        before = self._clock() - LEASE_S
        self._kept = {k: one for k, one in self._kept.items() if one.stays or one.asked_at > before}

    def break_promise(self, stage: int, version: int) -> None:
        """Answer those that wait for it, by what is here now."""
        for sender, request, send in self._promised.pop((stage, version), []):
            self.answer(sender, request, send)

    def answer(self, sender: PeerId, request: GetState, send: Send) -> None:
        """Give one chunk, or say that it is not here, or not for this sender any more."""
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
        kept = self._kept.get((request.stage, request.version))
        start, length = request.offset_bytes, request.length_bytes
        if kept is None or not 0 <= start < len(kept.snapshot.data):
            return None
        if not 0 < length <= CHUNK_BYTES:
            return None
        snapshot, total_bytes = kept.snapshot, len(kept.snapshot.data)
        if kept.given_bytes[sender] > MOST_TIMES * (total_bytes + CHUNK_BYTES):
            return None
        kept.given_bytes[sender] += length
        kept.asked_at = self._clock()
        chunk = snapshot.data[start : start + length]
        reply = StateChunk(snapshot.stage, snapshot.version, start, total_bytes, snapshot.digest)
        return reply, torch.frombuffer(chunk, dtype=torch.uint8)
