"""Faults made on purpose: links that are cut, slow or stand still, threads that hang, a daemon that
stands still or dies, a disk that is full; peers that move, failpoints that are switched on.

They are asked for by whoever started the process, for tests and experiments. A process may also be
far from all others from its start on: then every message on a link takes longer, while beacons by
UDP do not.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal, NoReturn

from swarmrt.errors import RunError, UsageError
from swarmrt.ids import PeerId
from swarmrt.runtime.faults.full_disk import FullDisk
from swarmrt.wire.writing import Outgoing

MAX_S = 3600.0
TICK_S = 1e-3  # of uvloop's clock
COMMANDS = (
    '{"cut": PEER, "seconds": S}, {"slow": PEER, "delay_s": D, "seconds": S}, '
    '{"still": PEER or null, "seconds": S}, {"hang": "compute" or "reduce", "seconds": S}, '
    '{"daemon": "still", "seconds": S}, {"daemon": "dead"}, {"disk": "full", "seconds": S}, '
    '{"move": PEER, "stage": N, "seconds": S}, {"failpoint": RULE}'
)

Thread = Literal["compute", "reduce"]


class LinkFaults:
    """The links of this process that are cut or slow at the moment. Links consult it."""

    def __init__(self, far_s: float = 0.0) -> None:
        """Messages to anybody are on their way for `far_s` longer, always."""
        self.far_s = far_s
        self._cut_until: dict[PeerId, float] = {}
        self._slow_until: dict[PeerId, tuple[float, float]] = {}  # delay, end
        self._still_until: dict[PeerId | None, float] = {}  # None: to anybody
        self._on_cut: Callable[[PeerId], None] = lambda _: None
        self._on_hang: Callable[[Thread, float], None] = lambda thread, seconds: None
        self._stop_daemon: Callable[[float], None] = lambda seconds: None
        self._kill_daemon: Callable[[], None] = lambda: None
        self._move: Callable[[PeerId, int, float], None] = lambda peer, stage, seconds: None
        self._arm: Callable[[str], None] = lambda rule: None
        self._disk = FullDisk()

    def on_cut(self, break_links: Callable[[PeerId], None]) -> None:
        """Name who breaks the existing links to a peer when it is cut off."""
        self._on_cut = break_links

    def on_hang(self, hang: Callable[[Thread, float], None]) -> None:
        """Name who makes a thread of this process hang."""
        self._on_hang = hang

    def on_daemon(self, stand_still: Callable[[float], None], die: Callable[[], None]) -> None:
        """Name who makes the libp2p daemon of this process stand still, and who kills it."""
        self._stop_daemon, self._kill_daemon = stand_still, die

    def on_move(self, move: Callable[[PeerId, int, float], None]) -> None:
        """Name who has a process serve another stage: that is the trainer's to do."""
        self._move = move

    def on_failpoint(self, arm: Callable[[str], None]) -> None:
        """Name who switches a failpoint on."""
        self._arm = arm

    def cut(self, peer: PeerId, seconds: float) -> None:
        """Break the links to the peer now, and refuse new ones, from here and there, until then."""
        self._cut_until[peer] = time.monotonic() + seconds
        self._on_cut(peer)

    def slow(self, peer: PeerId, delay_s: float, seconds: float) -> None:
        """Have messages to the peer take `delay_s` longer until then."""
        self._slow_until[peer] = (delay_s, time.monotonic() + seconds)

    def still(self, peer: PeerId | None, seconds: float) -> None:
        """Hold all messages to the peer, or to anybody, until then: as a radio does that has lost
        its access point for a moment."""
        self._still_until[peer] = time.monotonic() + seconds

    def is_cut(self, peer: PeerId) -> bool:
        return time.monotonic() < self._cut_until.get(peer, -math.inf)

    def check_not_cut(self, peer: PeerId) -> None:
        """Check that links to the peer may exist. Raises RunError while they are cut."""
        if self.is_cut(peer):
            raise RunError(f"the link to {peer} is cut")

    def slow_s(self, peer: PeerId) -> float:
        """Return by how many seconds the links to this peer are slow at the moment."""
        if not self._slow_until and not self._still_until:
            return 0.0
        now = time.monotonic()
        delay_s, until = self._slow_until.get(peer, (0.0, -math.inf))
        stands_until = max(self._still_until.get(whom, -math.inf) for whom in (peer, None))
        return max(delay_s if now < until else 0.0, stands_until - now, 0.0)

    def delay_s(self, peer: PeerId) -> float:
        """Return how many seconds longer a message to this peer takes."""
        return self.far_s + self.slow_s(peer)

    def obey(self, line: str) -> None:
        """Carry out a command, one of COMMANDS. Raises UsageError for anything else."""
        try:
            command = json.loads(line)
        except ValueError:
            _refuse(line)
        match command:
            case {"cut": str(peer), "seconds": seconds, **rest} if not rest:
                self.cut(PeerId(peer), _seconds(seconds, line))
            case {"slow": str(peer), "delay_s": delay, "seconds": seconds, **rest} if not rest:
                self.slow(PeerId(peer), _seconds(delay, line), _seconds(seconds, line))
            case {"still": str() | None as peer, "seconds": seconds, **rest} if not rest:
                whom = PeerId(peer) if peer is not None else None
                self.still(whom, _seconds(seconds, line))
            case {"hang": "compute" | "reduce" as thread, "seconds": seconds, **rest} if not rest:
                self._on_hang(thread, _seconds(seconds, line))
            case {"daemon": "still", "seconds": seconds, **rest} if not rest:
                self._stop_daemon(_seconds(seconds, line))
            case {"daemon": "dead", **rest} if not rest:
                self._kill_daemon()
            case {"move": str(peer), "stage": int(stage), "seconds": seconds, **rest} if not rest:
                self._move(PeerId(peer), stage, _seconds(seconds, line))
            case {"failpoint": str(rule), **rest} if not rest:
                self._arm(rule)
            case {"disk": "full", "seconds": seconds, **rest} if not rest:
                self._disk.fill(_seconds(seconds, line))
            case _:
                _refuse(line)


class Late:
    """Messages to one peer that wait for their time. They keep their order."""

    def __init__(
        self,
        push: Callable[[Outgoing], None],
        together: AbstractContextManager[None],
    ) -> None:
        """`together` is a context to push several in."""
        self._push, self._together = push, together
        self._waiting: deque[tuple[float, Outgoing]] = deque()
        self._last_due = -math.inf

    def __len__(self) -> int:
        return len(self._waiting)

    def hold(self, outgoing: Outgoing, delay_s: float) -> None:
        """Push it after the delay, and after all that were held before it."""
        loop = asyncio.get_running_loop()
        self._last_due = max(self._last_due, loop.time() + delay_s)
        self._waiting.append((self._last_due, outgoing))
        if len(self._waiting) == 1:
            loop.call_at(self._last_due, self._release)

    def take_all(self) -> list[Outgoing]:
        """Take all messages that wait: they are not pushed any more."""
        taken = [outgoing for _, outgoing in self._waiting]
        self._waiting.clear()
        return taken

    def _release(self) -> None:
        """Push all that are due; one timer, for the next of them, is enough."""
        loop = asyncio.get_running_loop()
        now = loop.time() + TICK_S
        with self._together:
            while self._waiting and self._waiting[0][0] <= now:
                self._push(self._waiting.popleft()[1])
        if self._waiting:
            loop.call_at(self._waiting[0][0], self._release)


def _seconds(value: Any, line: str) -> float:
    if type(value) in (int, float) and 0 < value <= MAX_S:
        return float(value)
    _refuse(line)


def _refuse(line: str) -> NoReturn:
    raise UsageError(
        f"not a command: {line.strip():.200}; write one of {COMMANDS}, with at most {MAX_S:.0f} s"
    )
