"""Getting a snapshot from several donors at once.

Rules:
- Replicas are equal to the bit, so their snapshots are equal to the byte, and chunks may come from
  any of them.
- A donor's word is not enough. How large the file is follows from the stage. Which file it is, most
  donors say. What came is compared with the parameters that the swarm has agreed on; where it is
  not that, another donor's file is tried.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import torch

from swarmrt.errors import RunError, SwarmError
from swarmrt.foreign import printable
from swarmrt.ids import PeerId
from swarmrt.messages import GetState, NoState, StateChunk
from swarmrt.model.layout import Layout
from swarmrt.runtime.landing import InMemory, Landing
from swarmrt.runtime.snapshot import (
    Snapshot,
    digest_of,
    read_snapshot,
    snapshot_bytes,
)
from swarmrt.runtime.state import CHUNK_BYTES, Send
from swarmrt.scheduler.estimate import Estimate

OUTSTANDING_CHUNKS = 4  # asked for at once: keeps a link full, and memory small
MAX_DONORS = 16  # of one snapshot: more are not asked
CHUNK_S = 10.0  # for the first chunk, before it is known how long one takes
LATER_S = 0.25  # at least, for donors that say later than the first one which file they have
MISSES = 5  # of a donor, each after twice as long

T = TypeVar("T")
NewLanding = Callable[[int], Landing]  # for a file of so many bytes; called on a thread


@dataclass(frozen=True)
class Wanted:
    """A version of a stage, and what is known of it."""

    layout: Layout
    version: int
    digest: str = ""  # of its parameters, where it is known

    @property
    def stage(self) -> int:
        return self.layout.stage_index

    @property
    def size_bytes(self) -> int:
        return snapshot_bytes(self.stage, self.version, self.layout.tensors)

    def check(self, snapshot: Snapshot) -> None:
        """Check that a snapshot is what is wanted. Raises CheckpointError when it is not."""
        source = f"the snapshot of {self}"
        self.layout.check(read_snapshot(snapshot.data, source), self.digest, source)

    def __str__(self) -> str:
        return f"version {self.version} of stage {self.stage}"


class Awaiting(Protocol):
    """A consumer of donors' answers."""

    def chunk_arrived(
        self, sender: PeerId, chunk: StateChunk, tensors: Sequence[object]
    ) -> None: ...

    def donor_failed(self, donor: PeerId, reason: str) -> None: ...


class Vote:
    """Asks donors which file they have, by its first byte. Feed it the answers."""

    def __init__(self, wanted: Wanted, donors: Sequence[PeerId], send: Send) -> None:
        self._wanted, self._send = wanted, send
        self._size_bytes = wanted.size_bytes
        self._missing = list(donors)
        self._named: dict[str, list[PeerId]] = {}  # digest → who has such a file
        self._progress = asyncio.Event()
        self._reason = ""

    async def files(self) -> list[tuple[str, list[PeerId]]]:
        """Digests with the donors that name them, the most named first.

        Raises RunError when no donor has a file.
        """
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        for retry in range(MISSES):
            for donor in list(self._missing):
                request = GetState(self._wanted.stage, self._wanted.version, 0, 1)
                self._send(donor, request, ())
            if await self._comes(lambda: bool(self._named), CHUNK_S * 2**retry):
                break
        for donor in [] if self._named else list(self._missing):
            self.donor_failed(donor, f"has not answered {MISSES} times")
        await self._comes(lambda: False, max(LATER_S, loop.time() - asked_at))
        if not self._named:
            raise RunError(
                f"cannot get {self._wanted}: {self._reason}, and there is no other donor"
            )
        return sorted(self._named.items(), key=lambda entry: -len(entry[1]))

    async def _comes(self, done: Callable[[], bool], within_s: float) -> bool:
        """Return whether an answer comes within that time, or nobody is left to wait for."""
        try:
            async with asyncio.timeout(within_s):
                while self._missing and not done():
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    def chunk_arrived(self, sender: PeerId, chunk: StateChunk, tensors: Sequence[object]) -> None:
        if sender not in self._missing:
            return
        if chunk.total_bytes != self._size_bytes:
            reason = f"has a file of {chunk.total_bytes} bytes, which cannot be it"
            self.donor_failed(sender, reason)
            return
        self._missing.remove(sender)
        self._named.setdefault(chunk.digest, []).append(sender)
        self._progress.set()

    def donor_failed(self, donor: PeerId, reason: str) -> None:
        if donor in self._missing:
            self._missing.remove(donor)
            self._reason = f"{donor} {reason}"
            self._progress.set()


class Fetch:
    """A file on its way to a landing, from donors that name its digest. Feed it the answers."""

    def __init__(
        self,
        wanted: Wanted,
        digest: str,
        donors: Sequence[PeerId],
        send: Send,
        landing: Landing,
        came_bytes: Callable[[], int],
    ) -> None:
        self._wanted, self._digest, self._send = wanted, digest, send
        self._donors = list(donors)
        self._landing = landing
        self._size_bytes = self._missing_bytes = wanted.size_bytes
        self._being_written = 0  # chunks
        self._asked: dict[int, tuple[PeerId, float]] = {}  # offset → donor, and when
        self._owes: defaultdict[PeerId, set[int]] = defaultdict(set)  # also what others were asked
        self._came_bytes = came_bytes
        self._chunk_time = Estimate()
        self._retries = 0  # since something came
        self._misses: Counter[PeerId] = Counter()
        self._next_offset = 0
        self._turn = 0
        self._progress = asyncio.Event()
        self._failure: RunError | OSError | None = None

    async def snapshot(self) -> Snapshot | None:
        """Return the whole file, or None when it has another digest than was said.

        Raises RunError when no donor can give it, OSError when it cannot be written.
        """
        self._ask()
        while self._missing_bytes and self._failure is None:
            self._progress.clear()
            came_bytes = self._came_bytes()
            try:
                async with asyncio.timeout(self._chunk_time.patience_s(CHUNK_S, self._retries)):
                    await self._progress.wait()
                self._retries = 0
            except TimeoutError:
                if came_bytes == self._came_bytes():  # what still moves is not asked for again
                    self._ask_others()
        if self._failure is not None:
            raise self._failure
        data = self._landing.data()
        digest = await asyncio.to_thread(digest_of, data)
        if digest != self._digest:
            return None
        return Snapshot(self._wanted.stage, self._wanted.version, data, digest)

    def chunk_arrived(self, sender: PeerId, chunk: StateChunk, tensors: Sequence[object]) -> None:
        offset = chunk.offset_bytes
        _, asked_at = self._asked.get(offset, (None, 0.0))
        is_owed = offset in self._asked and offset in self._owes[sender]
        if not is_owed or len(tensors) != 1:
            return
        payload = tensors[0]
        if not isinstance(payload, torch.Tensor) or payload.dtype != torch.uint8:
            return
        total_bytes = self._size_bytes
        if (chunk.digest, chunk.total_bytes) != (self._digest, total_bytes):
            self.donor_failed(sender, "holds another file than it has said")
            return
        if not offset and payload.shape == (1,) != (total_bytes,):
            return  # a late answer to the vote
        if payload.shape != (min(CHUNK_BYTES, total_bytes - offset),):
            self.donor_failed(sender, "sent a chunk of the wrong size")
            return
        data = payload.numpy().data
        self._chunk_time.add(asyncio.get_running_loop().time() - asked_at)
        self._misses[sender] = 0  # it answers again
        del self._asked[offset]
        self._being_written += 1
        self._landing.write(offset, data, partial(self._written, len(data)))

    def _written(self, size_bytes: int, error: OSError | None) -> None:
        """Make room for another chunk: one is where it belongs."""
        self._being_written -= 1
        if error is not None:
            self._failure = error
        else:
            self._missing_bytes -= size_bytes
            self._ask()
        self._progress.set()

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
        """Ask others for what is owed: nothing has come for longer than it should take."""
        self._retries += 1
        late = {donor for donor, _ in self._asked.values()}
        for donor in sorted(late):
            self._misses[donor] += 1
            if self._misses[donor] >= MISSES:
                self.donor_failed(donor, f"has not answered {MISSES} times")
        for offset in sorted(self._asked) if self._donors else ():
            self._request(offset)

    def _ask(self) -> None:
        while (
            self._donors
            and self._next_offset < self._size_bytes
            and len(self._asked) + self._being_written < OUTSTANDING_CHUNKS
        ):
            offset, self._next_offset = self._next_offset, self._next_offset + CHUNK_BYTES
            self._request(offset)

    def _request(self, offset: int) -> None:
        donor = self._donors[self._turn % len(self._donors)]
        self._turn += 1
        self._asked[offset] = donor, asyncio.get_running_loop().time()
        self._owes[donor].add(offset)
        request = GetState(self._wanted.stage, self._wanted.version, offset, CHUNK_BYTES)
        self._send(donor, request, ())

    def _fail(self, reason: str) -> None:
        self._failure = RunError(f"cannot get {self._wanted}: {printable(reason)}")
        self._progress.set()


class Fetches:
    """All snapshots on their way to this process."""

    def __init__(self, send: Send, came_bytes: Callable[[], int] = lambda: 0) -> None:
        """`came_bytes` tells how many bytes of states have come to this process so far, also of
        chunks that are not whole."""
        self._came_bytes = came_bytes
        self.distrusted: set[PeerId] = set()  # donors whose file was not what it had to be
        self._send = send
        self._awaiting: dict[tuple[int, int], Awaiting] = {}

    async def get(
        self, wanted: Wanted, donors: Sequence[PeerId], new_landing: NewLanding = InMemory
    ) -> Snapshot:
        """Return the snapshot, which lies where `new_landing` says.

        Donors that have given a wrong one before are asked when there is nobody else. Raises
        RunError when no donor can give it, OSError when it cannot be written.
        """
        if not donors:
            raise RunError(f"nobody is known to have {wanted}")
        asked = [donor for donor in dict.fromkeys(donors) if donor not in self.distrusted]
        asked = (asked or list(dict.fromkeys(donors)))[:MAX_DONORS]
        vote = Vote(wanted, asked, self._send)
        failure: SwarmError | None = None
        for digest, its_donors in await self._answer(wanted, vote, vote.files()):
            try:
                return await self._get_checked(wanted, digest, its_donors, new_landing)
            except SwarmError as error:
                failure = error
        raise RunError(str(failure))

    async def _get_checked(
        self, wanted: Wanted, digest: str, donors: list[PeerId], new_landing: NewLanding
    ) -> Snapshot:
        """Get it from all of them together; when that is damaged, from one after the other."""
        tries = [donors, *([donor] for donor in donors if len(donors) > 1)]
        failure = RunError(f"{wanted} arrived damaged: its digest differs")
        for some in tries:
            landing = await asyncio.to_thread(new_landing, wanted.size_bytes)
            fetch = Fetch(wanted, digest, some, self._send, landing, self._came_bytes)
            try:
                snapshot = await self._answer(wanted, fetch, fetch.snapshot())
            except RunError as error:
                failure = error
                continue
            if snapshot is not None:
                await self._check(wanted, snapshot, donors)
                return snapshot
            if len(some) == 1:
                self.distrusted |= set(some)
        raise failure

    async def _check(self, wanted: Wanted, snapshot: Snapshot, donors: list[PeerId]) -> None:
        """Check that the file which these donors name is what is wanted. Raises CheckpointError."""
        try:
            await asyncio.to_thread(partial(wanted.check, snapshot))
        except SwarmError:
            self.distrusted |= set(donors)
            raise

    async def _answer(self, wanted: Wanted, awaiting: Awaiting, answer: Awaitable[T]) -> T:
        """Wait for it, while donors' messages reach what has asked for it."""
        key = (wanted.stage, wanted.version)
        self._awaiting[key] = awaiting
        try:
            return await answer
        finally:
            if self._awaiting.get(key) is awaiting:  # and not a newer one
                del self._awaiting[key]

    def chunk_arrived(self, sender: PeerId, chunk: StateChunk, tensors: Sequence[object]) -> None:
        awaiting = self._awaiting.get((chunk.stage, chunk.version))
        if awaiting is not None:
            awaiting.chunk_arrived(sender, chunk, tensors)

    def refused(self, sender: PeerId, message: NoState | GetState, reason: str) -> None:
        awaiting = self._awaiting.get((message.stage, message.version))
        if awaiting is not None:
            awaiting.donor_failed(sender, reason)

    def donor_lost(self, donor: PeerId, reason: str) -> None:
        for awaiting in list(self._awaiting.values()):
            awaiting.donor_failed(donor, reason)
