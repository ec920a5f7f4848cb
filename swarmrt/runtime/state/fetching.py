"""Getting a snapshot from its donors: what `scheduler/fetching` decides, done with real bytes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from swarmrt.errors import RunError, SwarmError
from swarmrt.foreign import printable
from swarmrt.ids import PeerId, peer_of
from swarmrt.messages import GetState, NoState, StateChunk
from swarmrt.model.layout import Layout
from swarmrt.runtime.state.landing import InMemory, Landing
from swarmrt.runtime.state.offering import CHUNK_BYTES, Send
from swarmrt.runtime.state.snapshot import (
    Snapshot,
    digest_of,
    header_bytes,
    read_snapshot,
    snapshot_bytes,
)
from swarmrt.scheduler.fetching.events import (
    ChunkCame,
    ChunkWritten,
    DonorLost,
    DonorRefused,
    DonorsAreLate,
    DonorsNamed,
    FetchBegan,
    FetchEvent,
    FileChecked,
    Key,
    Verdict,
)
from swarmrt.scheduler.fetching.fetch import Check, Fetched, Fetching, GiveUp, Keep, Step
from swarmrt.scheduler.fetching.sharing import IN_ALL, Ask
from swarmrt.scheduler.recording import FetchRecord

Handle = Callable[[FetchEvent], list[Step]]
NewLanding = Callable[[int], Landing]  # for a file of so many bytes; called beside the loop
Beside = Callable[[Callable[[], Any]], Awaitable[Any]]
CameBytes = Callable[[PeerId], int]  # of states, from a process so far, also of parts of chunks


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
        most_bytes = header_bytes(self.stage, self.version, self.layout.tensors)
        tensors = read_snapshot(snapshot.data, source, most_bytes)
        self.layout.check(tensors, self.digest, source)

    def __str__(self) -> str:
        return f"version {self.version} of stage {self.stage}"


class Fetch:
    """A file on its way to its landing. Feed it the answers while `snapshot` is awaited."""

    def __init__(
        self,
        landing: Landing,
        handle: Handle,
        core: Fetching,
        send: Send,
        came: CameBytes,
        beside: Beside,
    ) -> None:
        """`handle` feeds an event to the core, and writes it down."""
        self._landing, self._handle, self._core = landing, handle, core
        self._send, self._came, self._beside = send, came, beside
        self.donors: Sequence[PeerId] = ()
        self._wanted: Wanted
        self._arrived: memoryview | None = None  # the chunk that is being handled
        self._to_check = ""  # digest of what has landed
        self._outcome: Snapshot | RunError | OSError | None = None
        self._change = asyncio.Event()

    async def snapshot(self, wanted: Wanted, donors: Sequence[PeerId]) -> Snapshot:
        """Return the whole file; what has landed of it before is not got again.

        Raises RunError when no donor can give it, OSError when it cannot be written.
        """
        self._begin(wanted, donors)
        while self._outcome is None:
            self._change.clear()
            if self._to_check:
                await self._check()
            elif not await self._comes_by(self._core.wake_at):
                came = ((donor, self._came(donor)) for donor in donors)
                self._act(self._handle(DonorsAreLate(tuple(came))))
        if isinstance(self._outcome, Snapshot):
            return self._outcome
        raise self._outcome

    @property
    def has_landed(self) -> bool:
        """Return whether anything of the file is here."""
        return bool(self._core.chunks.given)

    def _begin(self, wanted: Wanted, donors: Sequence[PeerId]) -> None:
        self.donors = donors
        self._wanted, self._outcome, self._to_check = wanted, None, ""
        self._act(self._handle(DonorsNamed(tuple(donors))))

    async def _comes_by(self, deadline: float) -> bool:
        """Return whether anything comes before."""
        try:
            async with asyncio.timeout_at(deadline if deadline < math.inf else None):
                await self._change.wait()
        except TimeoutError:
            return False
        return True

    async def _check(self) -> None:
        """See what has landed, beside the loop."""
        self._to_check, digest = "", self._to_check
        snapshot, verdict, reason = await self._beside(partial(self._look, digest))
        self._act(self._handle(FileChecked(verdict, reason)), snapshot)

    def _look(self, digest: str) -> tuple[Snapshot, Verdict, str]:
        data = self._landing.data()
        snapshot = Snapshot(self._wanted.stage, self._wanted.version, data, digest_of(data))
        if snapshot.digest != digest:
            return snapshot, "damaged", "it arrived damaged: its digest differs"
        try:
            self._wanted.check(snapshot)
        except SwarmError as error:
            return snapshot, "other", str(error)
        return snapshot, "right", ""

    def _act(self, steps: list[Step], checked: Snapshot | None = None) -> None:
        for step in steps:
            match step:
                case Ask(donor, offset, length):
                    stage, version = self._wanted.stage, self._wanted.version
                    self._send(donor, GetState(stage, version, offset, length), ())
                case Keep(offset):
                    assert self._arrived is not None
                    self._landing.write(offset, self._arrived, partial(self._written, offset))
                case Check(digest):
                    self._to_check = digest
                case Fetched():
                    self._outcome = checked
                case GiveUp(reason):
                    self._outcome = RunError(f"cannot get {self._wanted}: {printable(reason)}")
        self._change.set()

    def _written(self, offset: int, error: OSError | None) -> None:
        if error is None:
            self._act(self._handle(ChunkWritten(offset)))
        else:
            self._outcome = error
            self._change.set()

    def chunk_arrived(self, sender: PeerId, chunk: StateChunk, tensors: Sequence[object]) -> None:
        payload = tensors[0] if len(tensors) == 1 else None
        if not isinstance(payload, torch.Tensor) or payload.dtype != torch.uint8:
            return
        if payload.dim() != 1:
            return
        self._arrived = payload.numpy().data
        told = (chunk.offset_bytes, len(payload), chunk.digest, chunk.total_bytes)
        self._act(self._handle(ChunkCame(sender, *told)))
        self._arrived = None

    def donor_refused(self, donor: PeerId, reason: str) -> None:
        self._act(self._handle(DonorRefused(donor, reason)))

    def donor_lost(self, donor: PeerId, reason: str) -> None:
        self._act(self._handle(DonorLost(donor, reason)))


class Fetches:
    """All snapshots on their way to this process, and what has landed of them."""

    def __init__(
        self,
        send: Send,
        came: CameBytes = lambda donor: 0,
        write: Callable[[FetchRecord], None] = lambda record: None,
    ) -> None:
        """`write` puts a record into this process's log."""
        self.distrusted: set[PeerId] = set()  # donors whose file was not what it had to be
        self._send, self._came, self._write = send, came, write
        self._fetches: dict[Key, Fetch] = {}
        self._put_aside: dict[Key, Fetch] = {}  # the one that was begun before, at the most

    async def get(
        self,
        wanted: Wanted,
        donors: Sequence[PeerId],
        new_landing: NewLanding = InMemory,
        beside: Beside = asyncio.to_thread,
        at_once: int = IN_ALL,
    ) -> Snapshot:
        """Return the snapshot, which lies where `new_landing` says; `beside(work)` does what would
        hold up the loop there, and `at_once` chunks are asked for.

        When it fails or is cancelled, what has landed stays until it is let go: a second `get` of
        the same goes on there. Raises RunError when no donor can give it, OSError when it cannot
        be written.
        """
        key = (wanted.stage, wanted.version)
        fetch = self._fetches.get(key)
        if fetch is None:
            landing = await beside(partial(new_landing, wanted.size_bytes))
            core = Fetching(wanted.size_bytes, CHUNK_BYTES, self.distrusted, at_once)
            handle = partial(self._handle, key, core)
            handle(FetchBegan(wanted.size_bytes, CHUNK_BYTES, at_once))
            fetch = Fetch(landing, handle, core, self._send, self._came, beside)
            self._fetches[key] = fetch
        snapshot = await fetch.snapshot(wanted, donors)
        self._fetches.pop(key, None)  # nothing may write into it any more
        self._put_aside.clear()
        return snapshot

    def keep(self, stage: int, version: int, donors: Sequence[PeerId]) -> None:
        """Have donors keep a snapshot that is got later: they let go of what nobody asks for."""
        for donor in donors:
            self._send(donor, GetState(stage, version, 0, 1), ())

    def _handle(self, key: Key, core: Fetching, event: FetchEvent) -> list[Step]:
        """Feed an event to a core, and write it down."""
        now = asyncio.get_running_loop().time()
        steps = core.handle(event, now)
        self._write(FetchRecord(key, now, event, steps))
        return steps

    def let_go(self) -> None:
        """Free what has landed."""
        self._fetches.clear()
        self._put_aside.clear()

    def turn_to(self, key: Key) -> None:
        """Go on with what has landed of this stage and version. Of another one it stays, for when
        that is to be got again, until this is here; of all others it is freed."""
        known = {**self._put_aside, **self._fetches}
        self._fetches = {key: known.pop(key)} if key in known else {}
        begun = [(other, fetch) for other, fetch in known.items() if fetch.has_landed]
        self._put_aside = dict(begun[-1:])

    def chunk_arrived(self, sender: PeerId, chunk: StateChunk, tensors: Sequence[object]) -> None:
        fetch = self._fetches.get((chunk.stage, chunk.version))
        if fetch is not None:
            fetch.chunk_arrived(sender, chunk, tensors)

    def refused(self, sender: PeerId, message: NoState) -> None:
        fetch = self._fetches.get((message.stage, message.version))
        if fetch is not None:
            fetch.donor_refused(sender, "does not have it")

    def donor_lost(self, donor: PeerId, reason: str) -> None:
        for fetch in self._fetches.values():
            fetch.donor_lost(donor, reason)

    def peer_lost(self, peer: PeerId, reason: str) -> None:
        """Take note that there is no link to a process any more."""
        for fetch in self._fetches.values():
            for donor in fetch.donors:
                if peer_of(donor) == peer:
                    fetch.donor_lost(donor, reason)
