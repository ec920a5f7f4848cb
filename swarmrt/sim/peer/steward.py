"""A simulated process that serves where it helps most: the production StewardCore, and seats that
come and go in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from swarmrt.ids import PeerId
from swarmrt.scheduler.events import SeatClosed, SeatOpened, Started
from swarmrt.scheduler.instructions import CloseSeat, Instruction, OpenSeat, Send, Stop
from swarmrt.scheduler.settings import StewardSettings
from swarmrt.sim.engine.clock import Clock
from swarmrt.sim.engine.network import Network
from swarmrt.sim.engine.process import Process

MOST_BUILD_S = 1.0  # a stage is built in


@dataclass(frozen=True)
class Mover:
    """A process that serves where it helps most."""

    stages: tuple[int, ...]  # that it may serve
    rooms: int  # states that it has room for
    is_pinned: bool = False

    def __str__(self) -> str:
        pinned = ", pinned" if self.is_pinned else ""
        return f"{list(self.stages)} with {self.rooms} rooms{pinned}"


class SimulatedSteward:
    def __init__(
        self,
        settings: StewardSettings,
        clock: Clock,
        network: Network,
        rng: random.Random,
        open_seat: Callable[[int], None],
        close_seat: Callable[[int, str], None],
        gone: Callable[[PeerId], None],
        clock_offset_s: float = 0.0,
        clock_rate: float = 1.0,
    ) -> None:
        self.settings = settings
        self._clock, self._network, self._rng = clock, network, rng
        self._open_seat, self._close_seat, self._gone = open_seat, close_seat, gone
        self.process = Process(settings, clock, self._act, clock_offset_s, clock_rate)
        network.connect(settings.me, self.process.feed)

    def start(self) -> None:
        self.process.feed(Started())

    def closed(self, stage: int) -> None:
        """Take note that the seat there has come to its end."""
        self.process.feed(SeatClosed(stage))

    def _act(self, instruction: Instruction) -> None:
        match instruction:
            case Send(to, message):
                self._network.send(self.settings.me, to, message, None)
            case OpenSeat(stage):
                self._clock.after(self._rng.uniform(0, MOST_BUILD_S), partial(self._opened, stage))
            case CloseSeat(stage, reason):
                self._close_seat(stage, reason)
            case Stop():
                self._gone(self.settings.me)
            case _:
                raise AssertionError(f"a steward cannot {instruction}")

    def _opened(self, stage: int) -> None:
        if self.process.alive:
            self._open_seat(stage)
            self.process.feed(SeatOpened(stage))
