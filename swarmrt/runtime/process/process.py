"""A real process around a core: its deadlines, and one event at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import torch

from swarmrt.runtime.faults.failpoints import Failpoints
from swarmrt.runtime.process.clock import Deadlines
from swarmrt.runtime.process.event_log import EventLog
from swarmrt.scheduler.events import DeadlinePassed, Event
from swarmrt.scheduler.failpoints import Role
from swarmrt.scheduler.instructions import Instruction, StartDeadline, Stop
from swarmrt.scheduler.peer.seat import PeerSettings
from swarmrt.scheduler.recording import Header, Record, new_core
from swarmrt.scheduler.trainer.run import TrainerSettings


class Process:
    """Feed, take instructions, act. `stopped` has the core's Stop once it has come.

    An event fed while another is being acted on waits for its turn, so that instructions are
    carried out in the order in which the core gave them. `arrived` is the payload of the message
    that is being acted on. A bug anywhere ends the process: `stopped` then raises it.
    """

    def __init__(
        self,
        settings: PeerSettings | TrainerSettings,
        act: Callable[[Instruction], None],
        log: EventLog,
        failpoints: Failpoints,
    ) -> None:
        self.core = new_core(settings)
        self.stopped: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        self._act = act
        self._failpoints = failpoints
        self._role: Role = "peer" if isinstance(settings, PeerSettings) else "trainer"
        self._log = log
        self._deadlines = Deadlines(lambda name: self.feed(DeadlinePassed(name)))
        self.arrived: Sequence[torch.Tensor] = ()
        self._waiting: deque[tuple[Event, Sequence[torch.Tensor]]] = deque()
        self._busy = False
        log.write(Header(settings))

    def feed(self, event: Event, payload: Sequence[torch.Tensor] = ()) -> None:
        self._waiting.append((event, payload))
        if self._busy:
            return
        self._busy = True
        try:
            while self._waiting and not self.stopped.done():
                event, self.arrived = self._waiting.popleft()
                self._handle(event)
        except Exception as bug:  # noqa: BLE001 - carried to whoever awaits `stopped`
            self.crash(bug)
        finally:
            self._busy, self.arrived = False, ()

    def crash(self, bug: BaseException) -> None:
        """End the process with this exception."""
        if not self.stopped.done():
            self.stopped.set_exception(bug)

    def close(self) -> None:
        self._deadlines.close()
        self._log.close()

    def _handle(self, event: Event) -> None:
        now = self._deadlines.now
        instructions = self.core.handle(event, now)
        self._log.write(Record(now, event, instructions))
        for instruction in instructions:
            match instruction:
                case StartDeadline():
                    self._deadlines.start(instruction)
                case Stop():
                    if not self.stopped.done():
                        self.stopped.set_result(instruction)
                case _ if self._failpoints:
                    self._act_or_fail(instruction)
                case _:
                    self._act(instruction)

    def _act_or_fail(self, instruction: Instruction) -> None:
        if self._failpoints.before(self._role, instruction):
            self._act(instruction)
            self._failpoints.after(self._role, instruction)
