"""The turns of a core: one event at a time, each recorded before what it leads to is done.

It has no I/O of its own: a world derives from it, and says what its clock is, where records go, and
how deadlines and instructions are carried out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, TypeVar

from swarmrt.scheduler.events import Event
from swarmrt.scheduler.failpoints import Role, point_of
from swarmrt.scheduler.instructions import Instruction, StartDeadline
from swarmrt.scheduler.recording import Record, new_core
from swarmrt.scheduler.settings import AnySettings, TrainerSettings

P = TypeVar("P")


class Turns(ABC, Generic[P]):
    """A core's events in, one after the other; its instructions out, in the order it gave them.

    What is fed while an event is being acted on waits for its turn. `arrived` is the payload of
    the message that is being acted on, and `nothing` where there is none.
    """

    def __init__(self, settings: AnySettings, nothing: P) -> None:
        self.settings = settings
        self.core = new_core(settings)
        self.arrived = self._nothing = nothing
        self._role: Role = "trainer" if isinstance(settings, TrainerSettings) else "peer"
        self._waiting: deque[tuple[Event, P]] = deque()
        self._is_busy = False

    def feed(self, event: Event, payload: P | None = None) -> None:
        self._waiting.append((event, self._nothing if payload is None else payload))
        self._work_off()

    def _work_off(self) -> None:
        if self._is_busy:
            return
        self._is_busy = True
        try:
            while self._waiting and self._goes_on:
                event, self.arrived = self._waiting.popleft()
                self._turn(event)
        finally:
            self._is_busy, self.arrived = False, self._nothing

    def _turn(self, event: Event) -> None:
        now = self.now
        instructions = self.core.handle(event, now)
        self._note(Record(now, event, instructions))
        for instruction in instructions:
            if isinstance(instruction, StartDeadline):
                self._start(instruction)
            elif not self._has_failpoints:
                self._act(instruction)
            elif self._passes(point_of(self._role, instruction, "before")):
                self._act(instruction)
                self._passes(point_of(self._role, instruction, "after"))

    # ---------------------------------------------------------------------- what a world says

    @property
    @abstractmethod
    def now(self) -> float:
        """Return the seconds of the process's own monotonic clock."""

    @property
    @abstractmethod
    def _goes_on(self) -> bool:
        """Return whether the next event may be handled."""

    @property
    @abstractmethod
    def _has_failpoints(self) -> bool: ...

    @abstractmethod
    def _passes(self, point: str) -> bool:
        """Pass a failpoint, or none where the name is empty; return whether the act is done."""

    @abstractmethod
    def _note(self, record: Record) -> None:
        """Record a turn."""

    @abstractmethod
    def _start(self, deadline: StartDeadline) -> None:
        """Feed DeadlinePassed at its time. It replaces the earlier one of its name."""

    @abstractmethod
    def _act(self, instruction: Instruction) -> None:
        """Carry out whatever is not a deadline."""
