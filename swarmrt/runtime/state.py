"""Snapshots on their way: giving them to others, and getting one from several donors at once.

Replicas are equal to the bit, so their snapshots are equal to the byte, and chunks may come from
any of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

import torch

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.messages import GetState, Message, NoState, StateChunk
from swarmrt.runtime.snapshot import Snapshot, digest_of
from swarmrt.scheduler.estimate import Estimate
from swarmrt.wire.tensors import new_buffer

CHUNK_BYTES = 4 << 20
OUTSTANDING_CHUNKS = 4  # asked for at once: keeps a link full, and memory small
SNAPSHOTS_KEPT = 2  # one being fetched, and a newer one

CHUNK_S = 10.0  # for the first chunk, before it is known how long one takes
MISSES = 5  # of a donor, each after twice as long
MAX_WAITING = 256  # requests for a snapshot that is being written

Send = Callable[[PeerId, Message, Sequence[torch.Tensor]], None]
Asked = tuple[PeerId, GetState, Send]


class Shelf:
    """Snapshots that this process can give to others, now or as soon as they are written."""

    def __init__(self) -> None:
        self._snapshots: dict[tuple[int, int], Snapshot] = {}
        self._promised: dict[tuple[int, int], list[Asked]] = {}

    def promise(self, stage: int, version: int) -> None:
        """It will be `put` soon, or `break_promise` will be called: who asks for it waits."""
        self._promised.setdefault((stage, version), [])

    def put(self, snapshot: Snapshot, keep: int = SNAPSHOTS_KEPT) -> None:
        key = (snapshot.stage, snapshot.version)
        self._snapshots[key] = snapshot
        while len(self._snapshots) > keep:
            del self._snapshots[next(iter(self._snapshots))]
        self.break_promise(*key)

    def break_promise(self, stage: int, version: int) -> None:
        """Answer those that wait for it, by what is here now."""
        for sender, request, send in self._promised.pop((stage, version), []):
            self.answer(sender, request, send)

    def answer(self, sender: PeerId, request: GetState, send: Send) -> None:
        """One chunk, or that it is not here."""
        waiting = self._promised.get((request.stage, request.version))
        if waiting is not None and len(waiting) < MAX_WAITING:
            waiting.append((sender, request, send))
            return
        snapshot = self._snapshots.get((request.stage, request.version))
        start, length = request.offset_bytes, request.length_bytes
        inside = snapshot is not None and 0 <= start < len(snapshot.data)
        if snapshot is None or not inside or not 0 < length <= CHUNK_BYTES:
            send(sender, NoState(request.stage, request.version, start), ())
            return
        chunk = snapshot.data[start : start + length]
        payload = torch.frombuffer(chunk, dtype=torch.uint8)
        reply = StateChunk(
            snapshot.stage, snapshot.version, start, len(snapshot.data), snapshot.digest
        )
        send(sender, reply, (payload,))


class Fetch:
    """One snapshot on its way here. Feed it the answers; await `snapshot()`."""

    def __init__(
        self, stage: int, version: int, donors: Sequence[PeerId], send: Send, max_bytes: int
    ) -> None:
        self.stage, self.version = stage, version
        self._donors = list(donors)
        self._send = send
        self._max_bytes = max_bytes
        self._buffer = new_buffer(0)  # of the whole size, but only what has come takes memory
        self._total_bytes = -1  # until the first answer tells the size
        self._digest = ""
        self._asked: dict[int, tuple[PeerId, float]] = {}  # offset → donor, and when
        self._chunk_time = Estimate()
        self._retries = 0  # since something came
        self._misses: Counter[PeerId] = Counter()
        self._next_offset = 0
        self._missing_bytes = -1
        self._turn = 0
        self._progress = asyncio.Event()
        self._failure: RunError | None = None

    async def snapshot(self) -> Snapshot:
        """The whole file, its digest checked. Raises RunError when no donor can give it."""
        self._ask()
        while self._missing_bytes and self._failure is None:
            self._progress.clear()
            try:
                async with asyncio.timeout(self._chunk_time.patience_s(CHUNK_S, self._retries)):
                    await self._progress.wait()
                self._retries = 0
            except TimeoutError:
                self._ask_others()
        if self._failure is not None:
            raise self._failure
        digest = await asyncio.to_thread(digest_of, self._buffer)
        if digest != self._digest:
            raise RunError(f"{self._name} arrived damaged: its digest differs")
        return Snapshot(self.stage, self.version, self._buffer, digest)

    def chunk_arrived(self, sender: PeerId, chunk: StateChunk, tensors: Sequence[object]) -> None:
        offset = chunk.offset_bytes
        asked, asked_at = self._asked.get(offset, (None, 0.0))
        if asked != sender or len(tensors) != 1:
            return
        payload = tensors[0]
        if not isinstance(payload, torch.Tensor) or payload.dtype != torch.uint8:
            return
        if not 0 < chunk.total_bytes <= self._max_bytes:
            self.donor_failed(sender, f"has a file of {chunk.total_bytes} bytes, which is too much")
            return
        if self._missing_bytes < 0:
            self._digest = chunk.digest
            self._total_bytes = self._missing_bytes = chunk.total_bytes
            self._buffer = new_buffer(chunk.total_bytes)
        if (chunk.digest, chunk.total_bytes) != (self._digest, self._total_bytes):
            self.donor_failed(sender, "holds another file than the first donor")
            return
        data = payload.numpy().data
        if len(data) != min(CHUNK_BYTES, self._total_bytes - offset):
            self.donor_failed(sender, "sent a chunk of the wrong size")
            return
        self._buffer[offset : offset + len(data)] = data
        self._chunk_time.add(asyncio.get_running_loop().time() - asked_at)
        del self._asked[offset]
        self._missing_bytes -= len(data)
        self._progress.set()
        self._ask()

    def donor_failed(self, donor: PeerId, reason: str) -> None:
        """Ask the others for what this donor owes."""
        if donor not in self._donors:
            return
        self._donors.remove(donor)
        owed = sorted(offset for offset, (who, _) in self._asked.items() if who == donor)
        for offset in owed:
            del self._asked[offset]
        if not self._donors:
            self._fail(f"{donor} {reason}, and there is no other donor")
            return
        for offset in owed:
            self._request(offset)
        self._ask()

    def _ask_others(self) -> None:
        """Nothing has come for longer than it should take: ask others for what is owed."""
        self._retries += 1
        late = {donor for donor, _ in self._asked.values()}
        for donor in sorted(late):
            self._misses[donor] += 1
            if self._misses[donor] >= MISSES:
                self.donor_failed(donor, f"has not answered {MISSES} times")
        for offset in sorted(self._asked) if self._donors else ():
            self._request(offset)

    def _ask(self) -> None:
        size = max(1, self._total_bytes)
        while self._donors and self._next_offset < size and len(self._asked) < OUTSTANDING_CHUNKS:
            offset, self._next_offset = self._next_offset, self._next_offset + CHUNK_BYTES
            self._request(offset)

    def _request(self, offset: int) -> None:
        donor = self._donors[self._turn % len(self._donors)]
        self._turn += 1
        self._asked[offset] = donor, asyncio.get_running_loop().time()
        self._send(donor, GetState(self.stage, self.version, offset, CHUNK_BYTES), ())

    def _fail(self, reason: str) -> None:
        self._failure = RunError(f"cannot get {self._name}: {reason}")
        self._progress.set()

    @property
    def _name(self) -> str:
        return f"version {self.version} of stage {self.stage}"


class Fetches:
    """All snapshots on their way to this process."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._fetches: dict[tuple[int, int], Fetch] = {}

    async def get(
        self, stage: int, version: int, donors: Sequence[PeerId], max_bytes: int
    ) -> Snapshot:
        """The snapshot. Raises RunError when no donor can give it, or it is larger."""
        if not donors:
            raise RunError(f"nobody is known to have version {version} of stage {stage}")
        fetch = Fetch(stage, version, donors, self._send, max_bytes)
        self._fetches[stage, version] = fetch
        try:
            return await fetch.snapshot()
        finally:
            if self._fetches.get((stage, version)) is fetch:  # and not a newer one
                del self._fetches[stage, version]

    def chunk_arrived(self, sender: PeerId, chunk: StateChunk, tensors: Sequence[object]) -> None:
        fetch = self._fetches.get((chunk.stage, chunk.version))
        if fetch is not None:
            fetch.chunk_arrived(sender, chunk, tensors)

    def refused(self, sender: PeerId, message: NoState | GetState, reason: str) -> None:
        fetch = self._fetches.get((message.stage, message.version))
        if fetch is not None:
            fetch.donor_failed(sender, reason)

    def donor_lost(self, donor: PeerId, reason: str) -> None:
        for fetch in self._fetches.values():
            fetch.donor_failed(donor, reason)
