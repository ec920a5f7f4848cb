"""A simulated process: a core, its deadlines, and its log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swarmrt.ids import PeerId
from swarmrt.scheduler.events import DeadlinePassed, Event
from swarmrt.scheduler.instructions import Instruction, StartDeadline
from swarmrt.scheduler.peer import PeerSettings
from swarmrt.scheduler.recording import header, new_core, record
from swarmrt.scheduler.trainer import TrainerSettings
from swarmrt.sim.clock import Clock


class Process:
    """Feed, take instructions, act; check the invariants after every event."""

    def __init__(
        self,
        settings: PeerSettings | TrainerSettings,
        clock: Clock,
        act: Callable[[Instruction], None],
    ) -> None:
        self.me: PeerId = settings.me
        self.core = new_core(settings)
        self.log: list[dict[str, Any]] = [header(settings)]
        self.alive = True
        self._clock = clock
        self._act = act
        self._newest: dict[str, float] = {}  # deadline → when it was asked for

    def feed(self, event: Event) -> None:
        if not self.alive:
            return
        instructions = self.core.handle(event, self._clock.now)
        self.log.append(record(self._clock.now, event, instructions))
        self.core.validate()
        for instruction in instructions:
            if isinstance(instruction, StartDeadline):
                self._start(instruction)
            else:
                self._act(instruction)

    def _start(self, deadline: StartDeadline) -> None:
        self._newest[deadline.name] = deadline.at

        def passed() -> None:
            if self._newest.get(deadline.name) == deadline.at:
                del self._newest[deadline.name]
                self.feed(DeadlinePassed(deadline.name))

        self._clock.at(deadline.at, passed)
