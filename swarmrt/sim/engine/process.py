"""A simulated process: a core, its deadlines, its clock, and its log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swarmrt.ids import PeerId
from swarmrt.scheduler.events import DeadlinePassed, Event
from swarmrt.scheduler.instructions import Instruction, StartDeadline
from swarmrt.scheduler.recording import Header, Record, to_plain
from swarmrt.scheduler.settings import AnySettings
from swarmrt.scheduler.turns import Turns
from swarmrt.sim.engine.clock import Clock


class Process(Turns[Any]):
    """A core that is fed; its invariants are checked after every event.

    Its own clock has an offset and a rate. While it is paused, events wait for it.
    """

    def __init__(
        self,
        settings: AnySettings,
        clock: Clock,
        act: Callable[[Instruction], None],
        clock_offset_s: float = 0.0,
        clock_rate: float = 1.0,
    ) -> None:
        super().__init__(settings, None)
        self.me: PeerId = settings.me
        self.alive = True
        self.paused = False
        self._goes_on_at = 0.0
        self.history: list[Record] = []
        self.at_failpoint: Callable[[Process, str], None] | None = None
        self._clock = clock
        self._offset_s, self._rate = clock_offset_s, clock_rate
        self._carry_out = act
        self._newest: dict[str, float] = {}  # deadline → when it was asked for

    @property
    def now(self) -> float:
        """Return the time by its own clock."""
        return self._offset_s + self._rate * self._clock.now

    def feed(self, event: Event, payload: Any = None) -> None:
        if self.alive:
            super().feed(event, payload)

    def pause(self, seconds: float) -> None:
        """Stop it for a while as by SIGSTOP: its links stay, and whatever comes waits."""
        self.paused = True
        self._goes_on_at = max(self._goes_on_at, self._clock.now + seconds)
        self._clock.after(seconds, self._go_on)

    def _go_on(self) -> None:
        if self.paused and self._clock.now >= self._goes_on_at:
            self.paused = False
            self._work_off()

    def log(self) -> list[dict[str, Any]]:
        """Return the log as it would be on disk."""
        return [to_plain(record) for record in (Header(self.settings), *self.history)]

    @property
    def _goes_on(self) -> bool:
        return self.alive and not self.paused

    @property
    def _has_failpoints(self) -> bool:
        return self.at_failpoint is not None

    def _passes(self, point: str) -> bool:
        if point and self.at_failpoint is not None:
            self.at_failpoint(self, point)
        return self.alive

    def _note(self, record: Record) -> None:
        self.history.append(record)
        self.core.validate()

    def _start(self, deadline: StartDeadline) -> None:
        self._newest[deadline.name] = deadline.at

        def passed() -> None:
            if self._newest.get(deadline.name) == deadline.at:
                del self._newest[deadline.name]
                self.feed(DeadlinePassed(deadline.name))

        self._clock.at((deadline.at - self._offset_s) / self._rate, passed)

    def _act(self, instruction: Instruction) -> None:
        if self.alive:  # what it has just done may have ended it
            self._carry_out(instruction)
