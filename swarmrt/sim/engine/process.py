"""A simulated process: a core, its deadlines, its clock, and its log."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from swarmrt.ids import PeerId
from swarmrt.scheduler.events import DeadlinePassed, Event
from swarmrt.scheduler.failpoints import Role, point_of
from swarmrt.scheduler.instructions import Instruction, StartDeadline
from swarmrt.scheduler.peer.seat import PeerSettings
from swarmrt.scheduler.recording import Header, Record, new_core, to_plain
from swarmrt.scheduler.trainer.run import TrainerSettings
from swarmrt.sim.engine.clock import Clock


class Process:
    """Feed, take instructions, act; check the invariants after every event.

    Its own clock has an offset and a rate. While it is paused, events wait for it.
    """

    def __init__(
        self,
        settings: PeerSettings | TrainerSettings,
        clock: Clock,
        act: Callable[[Instruction], None],
        clock_offset_s: float = 0.0,
        clock_rate: float = 1.0,
    ) -> None:
        self.me: PeerId = settings.me
        self.settings = settings
        self.core = new_core(settings)
        self.alive = True
        self.paused = False
        self.arrived: Any = None  # payload of the message that is being handled
        self.history: list[Record] = []
        self.at_failpoint: Callable[[Process, str], None] | None = None
        self._clock = clock
        self._offset_s, self._rate = clock_offset_s, clock_rate
        self._act = act
        self._newest: dict[str, float] = {}  # deadline → when it was asked for
        self._waiting: deque[tuple[Event, Any]] = deque()
        self._busy = False

    @property
    def now(self) -> float:
        """Return the time by its own clock."""
        return self._offset_s + self._rate * self._clock.now

    def feed(self, event: Event, payload: Any = None) -> None:
        if not self.alive:
            return
        self._waiting.append((event, payload))
        if not self.paused and not self._busy:
            self._work_off()

    def pause(self) -> None:
        """Stop it as by SIGSTOP: its links stay, and whatever comes waits."""
        self.paused = True

    def go_on(self) -> None:
        if self.paused:
            self.paused = False
            if not self._busy:
                self._work_off()

    def log(self) -> list[dict[str, Any]]:
        """Return the log as it would be on disk."""
        return [to_plain(record) for record in (Header(self.settings), *self.history)]

    def _work_off(self) -> None:
        """Handle one event at a time: what is fed meanwhile waits for its turn."""
        self._busy = True
        while self._waiting and self.alive and not self.paused:
            event, self.arrived = self._waiting.popleft()
            self._handle(event)
        self._busy = False

    def _handle(self, event: Event) -> None:
        now = self.now
        instructions = self.core.handle(event, now)
        self.history.append(Record(now, event, instructions))
        self.core.validate()
        for instruction in instructions:
            if isinstance(instruction, StartDeadline):
                self._start(instruction)
            elif self._passes(instruction, "before"):
                self._act(instruction)
                self._passes(instruction, "after")

    def _passes(self, instruction: Instruction, when: str) -> bool:
        """Pass a failpoint. False when the process does not live to do what comes next."""
        if self.at_failpoint is not None:
            role: Role = "peer" if isinstance(self.settings, PeerSettings) else "trainer"
            point = point_of(role, instruction, when)
            if point:
                self.at_failpoint(self, point)
        return self.alive

    def _start(self, deadline: StartDeadline) -> None:
        self._newest[deadline.name] = deadline.at

        def passed() -> None:
            if self._newest.get(deadline.name) == deadline.at:
                del self._newest[deadline.name]
                self.feed(DeadlinePassed(deadline.name))

        self._clock.at((deadline.at - self._offset_s) / self._rate, passed)
