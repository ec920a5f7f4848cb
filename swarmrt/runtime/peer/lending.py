"""The lending of this machine's device by its owner: what is asked at the local socket.

Rules:
- The last word counts, from wherever it comes, for all seats of this process, those to come too.
- A pause is answered once the device is free; who resumes, once the state is on it again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence

from swarmrt.errors import RunError, UsageError, did_you_mean
from swarmrt.runtime.owner.words import State, Told
from swarmrt.runtime.peer.peer import Peer
from swarmrt.runtime.process.stopping import StopSwitch

ACTS = ("status", "pause", "resume", "stop")


class Lending:
    def __init__(self, run: str, stages: tuple[int, ...], device: str, switch: StopSwitch) -> None:
        self._run, self._stages, self._device, self._switch = run, stages, device, switch
        self._seats: Sequence[Peer] = ()
        self._is_paused = False
        self._one = asyncio.Lock()  # a wish at a time

    async def keep(self, seats: Sequence[Peer]) -> None:
        """Have these seats follow what was asked before, and what is asked from now on. Never
        returns."""
        self._seats = seats
        try:
            if self._is_paused:
                for seat in seats:
                    seat.lent.pause()
            await asyncio.Event().wait()
        finally:
            self._seats = ()

    async def answer(self, act: str) -> Told:
        """Do what the owner asks. Raises UsageError for what is nothing to ask for."""
        began_at, error, freed_bytes = time.monotonic(), "", 0
        try:
            match act:
                case "status":
                    pass
                case "pause":
                    freed_bytes = await self._pause()
                case "resume":
                    await self._resume()
                case "stop":
                    self._switch.throw("its owner has stopped it")
                case _:
                    raise UsageError(f"{act!r:.40} is nothing to ask{did_you_mean(act, ACTS)}")
        except RunError as problem:
            error = str(problem)
        took_s = time.monotonic() - began_at
        alone = [seat.seat for seat in self._seats if seat.lent.is_alone]
        return Told(
            os.getpid(),
            self._run,
            self._stages,
            self._state,
            self._device,
            took_s,
            freed_bytes,
            tuple(alone) if act == "pause" else (),
            error,
        )

    async def _pause(self) -> int:
        """Return how many bytes of the device are free by that."""
        async with self._one:
            self._is_paused = True
            seats = self._seats
            for seat in seats:
                seat.lent.pause()
            for seat in seats:
                await seat.lent.until_free()
            return sum(seat.lent.freed_bytes for seat in seats)

    async def _resume(self) -> None:
        async with self._one:
            for seat in self._seats:
                await seat.lent.resume()
            self._is_paused = False

    @property
    def _state(self) -> State:
        if self._switch.thrown:
            return "leaving"
        return "paused" if self._is_paused else "serving"
