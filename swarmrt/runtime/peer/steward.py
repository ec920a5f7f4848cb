"""A process that serves where it helps most: seats are opened and closed as its core says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from swarmrt.errors import SwarmError
from swarmrt.ids import NO_SEAT, PeerId
from swarmrt.messages import Message
from swarmrt.runtime.access.membership import Membership
from swarmrt.runtime.computing.trouble import is_out_of_memory, said_by
from swarmrt.runtime.faults.failpoints import Failpoints
from swarmrt.runtime.process.shell import Shell, Surroundings
from swarmrt.scheduler.events import SeatClosed, SeatNotOpened, SeatOpened
from swarmrt.scheduler.instructions import CloseSeat, Instruction, OpenSeat, Send
from swarmrt.scheduler.settings import StewardSettings

log = logging.getLogger("swarmrt.steward")

OpenAt = Callable[[int], Awaitable[None]]
CloseAt = Callable[[int, str], None]


class Steward(Shell):
    """The shell of a StewardCore, which has no seat itself."""

    def __init__(
        self,
        around: Surroundings,
        membership: Membership,
        settings: StewardSettings,
        open_at: OpenAt,
        close_at: CloseAt,
        log_dir: Path | None,
        failpoints: Failpoints,
    ) -> None:
        """`open_at` has a seat opened at a stage; it raises SwarmError where it cannot be."""
        path = None if log_dir is None else log_dir / "events.jsonl"
        super().__init__(around, NO_SEAT, settings, path, failpoints)
        self._membership, self._open_at, self._close_at = membership, open_at, close_at
        self._is_asked = False  # to leave
        self._look: asyncio.Task[None] | None = None  # for the trainer

    def duties(self) -> list[Coroutine[Any, Any, None]]:
        return []

    def ask_to_stop(self, reason: str) -> None:
        self._is_asked = True
        super().ask_to_stop(reason)

    @property
    def is_leaving(self) -> bool:
        """Return whether it opens no seats any more."""
        return self._is_asked or self.process.stopped.done()

    def closed(self, stage: int) -> None:
        """Take note that the seat at a stage has come to its end."""
        self.process.feed(SeatClosed(stage))

    def send_failed(self, to: PeerId, message: Message) -> None:
        """Look where the trainer is, once at a time: without a seat nobody else does."""
        super().send_failed(to, message)
        if to == self._membership.trainer and (self._look is None or self._look.done()):
            self._look = self.start(self._membership.look_again())

    def act(self, instruction: Instruction) -> None:
        match instruction:
            case Send(to, message):
                self.send(to, message)
            case OpenSeat(stage):
                self.start(self._open(stage))
            case CloseSeat(stage, reason):
                log.info("the seat at stage %d is given up: %s", stage, reason)
                self._close_at(stage, reason)
            case _:
                raise AssertionError(f"a steward cannot {instruction}")

    async def _open(self, stage: int) -> None:
        try:
            await self._open_at(stage)
        except SwarmError as error:
            self.process.feed(SeatNotOpened(stage, str(error)))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.process.feed(SeatNotOpened(stage, said_by(error)))
        else:
            self.process.feed(SeatOpened(stage))
