"""State on its way between simulated processes: what `scheduler/fetching` decides, in chunks that
go beside all else that links carry."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

from swarmrt.ids import PeerId, peer_of
from swarmrt.messages import GetState, NoState, StateChunk
from swarmrt.scheduler.events import Event, PeerLost, Received, SendFailed
from swarmrt.scheduler.fetching.events import Key
from swarmrt.scheduler.fetching.fetch import Check, Fetched, Fetching, GiveUp, Keep, Step
from swarmrt.scheduler.fetching.sharing import IN_ALL, Ask
from swarmrt.sim.engine.clock import Clock
from swarmrt.sim.engine.network import Network
from swarmrt.sim.engine.process import Process

CHUNK_BYTES = 4 << 20
MOST_CHUNKS = 64  # of one state: larger ones travel in larger chunks
PAUSED_S = 0.05  # between looks at whether a process goes on

Update = tuple[tuple[str, int], ...]  # what one step applied: (microbatch by owner, halves)
History = tuple[Update, ...]
Done = Callable[[History | None], None]


def digest_of(history: History) -> str:
    return hashlib.blake2b(repr(history).encode(), digest_size=8).hexdigest()


class Exchange:
    """The place where a process gives and gets states; whatever else comes is for its core."""

    def __init__(
        self,
        process: Process,
        clock: Clock,
        network: Network,
        state_bytes: int,
        find: Callable[[int, int], History | None],
        at_once: int = IN_ALL,
    ) -> None:
        """`find` is asked for the state of a stage and version that this process can give.
        `at_once` chunks are asked for of what it gets."""
        self.clock, self.state_bytes = clock, state_bytes
        self.chunk_bytes = max(CHUNK_BYTES, -(-state_bytes // MOST_CHUNKS))
        self._process, self._network, self._find = process, network, find
        self._distrusted: set[PeerId] = set()
        self._at_once = at_once
        self._fetches: dict[Key, Fetch] = {}
        self._put_aside: dict[Key, Fetch] = {}  # the one that was begun before, at the most
        network.connect(process.me, self._arrived)

    def get(
        self, stage: int, version: int, digest: str, donors: tuple[PeerId, ...], done: Done
    ) -> None:
        """Call back with the state, or with None when no donor can give it.

        When nobody can, what has landed stays until it is let go: another `get` of the same goes
        on there.
        """
        fetch = self._fetches.get((stage, version))
        if fetch is None:
            core = Fetching(self.state_bytes, self.chunk_bytes, self._distrusted, self._at_once)
            fetch = self._fetches[stage, version] = Fetch(self, stage, version, core)
        fetch.start(digest, donors, done)

    def let_go(self) -> None:
        """Forget whatever has landed or is asked for."""
        for fetch in self._fetches.values():
            fetch.stop()
        self._fetches.clear()
        self._put_aside.clear()

    def turn_to(self, key: Key) -> None:
        """Go on with what has landed of this stage and version. Of another one it stays, for when
        that is to be got again, until this is here; of all others it is forgotten."""
        known = {**self._put_aside, **self._fetches}
        self._fetches = {key: known.pop(key)} if key in known else {}
        for fetch in known.values():
            fetch.stop()
        begun = [(other, fetch) for other, fetch in known.items() if fetch.has_landed]
        self._put_aside = dict(begun[-1:])

    def forget(self, stage: int, version: int) -> None:
        fetch = self._fetches.pop((stage, version), None)
        if fetch is not None:
            fetch.stop()
        self._put_aside.clear()

    def send(self, to: PeerId, message: GetState | StateChunk | NoState, payload: Any = None,
             size_bytes: int = 0) -> None:  # fmt: skip
        self._network.send(self._process.me, to, message, payload, size_bytes)

    def came_bytes(self, donor: PeerId) -> int:
        """Return how much of states has come from there."""
        wires = self._network.wires
        return (
            0 if wires is None else wires.state_bytes((peer_of(donor), peer_of(self._process.me)))
        )

    @property
    def is_alive(self) -> bool:
        return self._process.alive

    @property
    def is_paused(self) -> bool:
        return self._process.paused

    def _arrived(self, event: Event, payload: Any) -> None:
        match event:
            case Received(sender, GetState() | StateChunk() | NoState() as message):
                self._about_state(sender, message, payload)
                return
            case SendFailed(to, GetState()):
                self._lost(to)
                return
            case SendFailed(_, StateChunk() | NoState()):
                return
            case PeerLost(peer):
                self._peer_lost(peer)
        self._process.feed(event, payload)

    def _lost(self, donor: PeerId) -> None:
        for fetch in list(self._fetches.values()):
            fetch.donor_lost(donor)

    def _peer_lost(self, peer: PeerId) -> None:
        for fetch in list(self._fetches.values()):
            for donor in [peer, *(donor for donor in fetch.donors if donor != peer)]:
                if peer_of(donor) == peer:
                    fetch.donor_lost(donor)

    def _about_state(
        self, sender: PeerId, message: GetState | StateChunk | NoState, payload: Any
    ) -> None:
        if self.is_paused and self.is_alive:
            again = PAUSED_S
            self.clock.after(again, lambda: self._about_state(sender, message, payload))
            return
        fetch = self._fetches.get((message.stage, message.version))
        match message:
            case GetState():
                self._give(sender, message)
            case StateChunk() if fetch is not None:
                fetch.chunk_came(sender, message, *payload)
            case NoState() if fetch is not None:
                fetch.donor_refused(sender)

    def _give(self, to: PeerId, asked: GetState) -> None:
        stage, version, offset = asked.stage, asked.version, asked.offset_bytes
        found = self._find(stage, version) if self.is_alive else None
        if found is None:
            self.send(to, NoState(stage, version, offset))
            return
        size = min(asked.length_bytes, self.state_bytes - offset)
        chunk = StateChunk(stage, version, offset, self.state_bytes, digest_of(found))
        wires = self._network.wires
        if wires is None or not wires.carries((peer_of(self._process.me), peer_of(to)), chunk):
            self.send(to, chunk, (found, size), size)


class Fetch:
    """A state on its way here: each of its chunks is the whole history, as its donor has it."""

    def __init__(self, exchange: Exchange, stage: int, version: int, core: Fetching) -> None:
        self._exchange, self._core = exchange, core
        self._stage, self._version = stage, version
        self._landed: dict[int, History] = {}
        self._arrived: History = ()  # the chunk that is being handled
        self.donors: tuple[PeerId, ...] = ()
        self._digest = ""
        self._done: Done | None = None
        self._wakes_at = math.inf

    def start(self, digest: str, donors: tuple[PeerId, ...], done: Done) -> None:
        self._digest, self.donors, self._done = digest, donors, done
        self._act(self._core.ask(donors, self._exchange.clock.now))

    def stop(self) -> None:
        self._done = None

    @property
    def has_landed(self) -> bool:
        """Return whether anything of the file is here."""
        return bool(self._core.chunks.given)

    def chunk_came(self, sender: PeerId, chunk: StateChunk, history: History, size: int) -> None:
        self._arrived = history
        told = (chunk.offset_bytes, size, chunk.digest, chunk.total_bytes)
        self._act(self._core.chunk_came(sender, *told, self._exchange.clock.now))

    def donor_lost(self, donor: PeerId) -> None:
        self._act(self._core.donor_lost(donor, "is lost", self._exchange.clock.now))

    def donor_refused(self, donor: PeerId) -> None:
        self._act(self._core.donor_refused(donor, "has it not", self._exchange.clock.now))

    def _act(self, steps: list[Step]) -> None:
        self._core.validate()
        now = self._exchange.clock.now
        for step in steps:
            match step:
                case Ask(donor, offset, length):
                    self._exchange.send(donor, GetState(self._stage, self._version, offset, length))
                case Keep(offset):
                    self._landed[offset] = self._arrived
                    self._act(self._core.written(offset, now))
                case Check(digest):
                    self._check(digest)
                case Fetched():
                    self._end(self._landed[0])
                case GiveUp():
                    self._end(None)
        self._watch()

    def _check(self, digest: str) -> None:
        now = self._exchange.clock.now
        if {digest_of(history) for history in self._landed.values()} != {digest}:
            self._act(self._core.checked("damaged", "it is damaged", now))
        elif self._digest not in ("", digest):
            self._act(self._core.checked("other", "it is another", now))
        else:
            self._act(self._core.checked("right", "", now))

    def _watch(self) -> None:
        """Look again when the core wants to."""
        wake_at = self._core.wake_at
        if wake_at < math.inf and wake_at != self._wakes_at and self._done is not None:
            self._wakes_at = wake_at
            self._exchange.clock.at(wake_at, lambda: self._look(wake_at))

    def _look(self, wake_at: float) -> None:
        exchange, self._wakes_at = self._exchange, math.inf
        if wake_at != self._core.wake_at or self._done is None or not exchange.is_alive:
            return  # something has come meanwhile
        if exchange.is_paused:
            exchange.clock.after(PAUSED_S, lambda: self._look(wake_at))
            return
        came = {donor: exchange.came_bytes(donor) for donor in self.donors}
        self._act(self._core.deadline_passed(came, exchange.clock.now))

    def _end(self, history: History | None) -> None:
        done, self._done = self._done, None
        if history is not None:
            self._exchange.forget(self._stage, self._version)
        if done is not None:
            done(history)
