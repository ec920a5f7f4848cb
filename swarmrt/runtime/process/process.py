"""A real process around a core: its deadlines, its log, and the end of its work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import torch

from swarmrt.runtime.faults.failpoints import Failpoints
from swarmrt.runtime.process.clock import Deadlines
from swarmrt.runtime.process.event_log import EventLog
from swarmrt.scheduler.events import DeadlinePassed, Event
from swarmrt.scheduler.instructions import Instruction, StartDeadline, Stop
from swarmrt.scheduler.recording import Header, Record
from swarmrt.scheduler.settings import AnySettings
from swarmrt.scheduler.turns import Turns


class Process(Turns[Sequence[torch.Tensor]]):
    """A core that is fed. `stopped` has its Stop once it has come.

    A bug anywhere ends the process: `stopped` then raises it.
    """

    def __init__(
        self,
        settings: AnySettings,
        act: Callable[[Instruction], None],
        log: EventLog,
        failpoints: Failpoints,
    ) -> None:
        super().__init__(settings, nothing=())
        self.stopped: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        self._carry_out = act
        self._failpoints = failpoints
        self._log = log
        self._deadlines = Deadlines(lambda name: self.feed(DeadlinePassed(name)))
        log.write(Header(settings))

    def feed(self, event: Event, payload: Sequence[torch.Tensor] | None = None) -> None:
        """Feed an event. Once the core has stopped nothing is kept: its process may go on for
        other seats, and others go on talking."""
        if self._goes_on:
            super().feed(event, payload)

    def crash(self, bug: BaseException) -> None:
        """End the process with this exception."""
        if not self.stopped.done():
            self.stopped.set_exception(bug)

    def close(self) -> None:
        self._deadlines.close()
        self._log.close()

    @property
    def now(self) -> float:
        return self._deadlines.now

    @property
    def _goes_on(self) -> bool:
        return not self.stopped.done()

    def _work_off(self) -> None:
        try:
            super()._work_off()
        except Exception as bug:  # noqa: BLE001 - carried to whoever awaits `stopped`
            self.crash(bug)

    @property
    def _has_failpoints(self) -> bool:
        return bool(self._failpoints)

    def _passes(self, point: str) -> bool:
        return not point or self._failpoints.at(point)

    def _note(self, record: Record) -> None:
        self._log.write(record)

    def _start(self, deadline: StartDeadline) -> None:
        self._deadlines.start(deadline)

    def _act(self, instruction: Instruction) -> None:
        if not isinstance(instruction, Stop):
            self._carry_out(instruction)
        elif not self.stopped.done():
            self.stopped.set_result(instruction)
