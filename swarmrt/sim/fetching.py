"""State on its way between simulated processes: in chunks, beside all else that links carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from swarmrt.ids import PeerId
from swarmrt.messages import GetState, NoState, StateChunk
from swarmrt.scheduler.estimate import Estimate
from swarmrt.scheduler.events import Event, PeerLost, Received, SendFailed
from swarmrt.sim.clock import Clock
from swarmrt.sim.network import Network
from swarmrt.sim.process import Process

CHUNK_BYTES = 4 << 20
MOST_CHUNKS = 64  # of one state: larger ones travel in larger chunks
OUTSTANDING_CHUNKS = 4
CHUNK_S = 10.0  # for the first chunk, before it is known how long one takes
MISSES = 5  # of a donor, each after twice as long

History = tuple[tuple[tuple[str, int], ...], ...]
Done = Callable[[History | None], None]


class Exchange:
    """The place where a process gives and gets states; whatever else comes is for its core."""

    def __init__(
        self,
        process: Process,
        clock: Clock,
        network: Network,
        state_bytes: int,
        find: Callable[[int, int], History | None],
    ) -> None:
        """`find` is asked for the state of a stage and version that this process can give."""
        self.clock, self.state_bytes = clock, state_bytes
        self.chunk_bytes = max(CHUNK_BYTES, -(-state_bytes // MOST_CHUNKS))
        self._process, self._network, self._find = process, network, find
        self._fetches: dict[tuple[int, int], Fetch] = {}
        network.connect(process.me, self._arrived)

    def get(self, stage: int, version: int, donors: tuple[PeerId, ...], done: Done) -> None:
        """Call back with the state, or with None when no donor can give it."""
        fetch = self._fetches[stage, version] = Fetch(self, stage, version, donors, done)
        fetch.start()

    def stop(self) -> None:
        """Ask for nothing more: what was to come is not waited for."""
        for fetch in self._fetches.values():
            fetch.stop()
        self._fetches.clear()

    def send(
        self, to: PeerId, message: GetState | StateChunk | NoState, payload: Any = None
    ) -> None:
        size = min(self.chunk_bytes, self.state_bytes) if isinstance(message, StateChunk) else 0
        self._network.send(self._process.me, to, message, payload, size)

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
            case SendFailed(to, GetState(stage, version)):
                self._failed(to, stage, version)
                return
            case SendFailed(_, StateChunk() | NoState()):
                return
            case PeerLost(peer):
                for fetch in list(self._fetches.values()):
                    fetch.donor_failed(peer)
        self._process.feed(event, payload)

    def _about_state(
        self, sender: PeerId, message: GetState | StateChunk | NoState, payload: Any
    ) -> None:
        if self.is_paused and self.is_alive:
            self.clock.after(0.05, lambda: self._about_state(sender, message, payload))
            return
        match message:
            case GetState(stage, version, offset):
                found = self._find(stage, version) if self.is_alive else None
                if found is None:
                    self.send(sender, NoState(stage, version, offset))
                else:
                    self.send(sender, StateChunk(stage, version, offset, 0, ""), found)
            case StateChunk(stage, version, offset):
                fetch = self._fetches.get((stage, version))
                if fetch is not None:
                    fetch.chunk_arrived(sender, offset, payload)
            case NoState(stage, version):
                self._failed(sender, stage, version)

    def _failed(self, donor: PeerId, stage: int, version: int) -> None:
        fetch = self._fetches.get((stage, version))
        if fetch is not None:
            fetch.donor_failed(donor)


class Fetch:
    """A state on its way here, from several donors at once."""

    def __init__(
        self,
        exchange: Exchange,
        stage: int,
        version: int,
        donors: tuple[PeerId, ...],
        done: Done,
    ) -> None:
        self._exchange, self._done = exchange, done
        self._stage, self._version = stage, version
        self._donors = list(donors)
        self._unasked = list(range(0, exchange.state_bytes, exchange.chunk_bytes))[::-1]
        self._asked: dict[int, tuple[PeerId, float]] = {}  # offset → donor, and when
        self._chunk_time = Estimate()
        self._misses: Counter[PeerId] = Counter()
        self._retries = 0
        self._turn = 0
        self._came = 0  # chunks
        self._is_over = False

    def start(self) -> None:
        self._ask()
        self._watch()
        if not self._donors:
            self._end(None)

    def stop(self) -> None:
        self._is_over = True

    def chunk_arrived(self, sender: PeerId, offset: int, history: History) -> None:
        donor, asked_at = self._asked.get(offset, (None, 0.0))
        if donor != sender:
            return
        del self._asked[offset]
        self._chunk_time.add(self._exchange.clock.now - asked_at)
        self._came += 1
        self._retries = 0
        self._misses[sender] = 0
        self._ask()
        if not self._asked:
            self._end(history)

    def donor_failed(self, donor: PeerId) -> None:
        """Ask the others for what this donor owes."""
        if donor not in self._donors:
            return
        self._donors.remove(donor)
        owed = [offset for offset, (who, _) in self._asked.items() if who == donor]
        for offset in owed:
            del self._asked[offset]
        self._unasked += owed
        if self._donors:
            self._ask()
        else:
            self._end(None)

    def _ask(self) -> None:
        while self._donors and self._unasked and len(self._asked) < OUTSTANDING_CHUNKS:
            self._request(self._unasked.pop())

    def _request(self, offset: int) -> None:
        donor = self._donors[self._turn % len(self._donors)]
        self._turn += 1
        self._asked[offset] = donor, self._exchange.clock.now
        length = self._exchange.chunk_bytes
        self._exchange.send(donor, GetState(self._stage, self._version, offset, length))

    def _watch(self) -> None:
        came = self._came
        patience_s = self._chunk_time.patience_s(CHUNK_S, self._retries)
        self._exchange.clock.after(patience_s, lambda: self._look(came))

    def _look(self, came: int) -> None:
        """Ask again, and others, when nothing has come for longer than it should take."""
        if self._is_over or not self._exchange.is_alive:
            return
        if came == self._came and not self._exchange.is_paused:
            self._retries += 1
            for donor in sorted({donor for donor, _ in self._asked.values()}):
                self._misses[donor] += 1
                if self._misses[donor] >= MISSES:
                    self.donor_failed(donor)
            for offset in sorted(self._asked) if not self._is_over else ():
                self._request(offset)
        if not self._is_over:
            self._watch()

    def _end(self, history: History | None) -> None:
        if not self._is_over:
            self._is_over = True
            self._done(history)
