"""The lending of this machine's device by its owner: by what they ask at the local socket, and by
their hours.

Rules:
- What holds (`scheduler/lending.py`) is looked at again and again, for all seats of this process,
  those to come too: whatever changes, it comes to be so.
- A pause is answered once the device is free, a resume once the state is on it again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence

from swarmrt.errors import RunError, UsageError, did_you_mean
from swarmrt.runtime.owner.words import State, Told
from swarmrt.runtime.peer.peer import Peer
from swarmrt.runtime.peer.serve_options import ServeOptions
from swarmrt.runtime.process.stopping import StopSwitch
from swarmrt.scheduler.lending import AHEAD_S, Owner, Wish

ACTS = ("status", "pause", "resume", "stop")
LOOK_S = 1.0  # between two looks at the clock
AGAIN_S = 60.0  # before a device that had no room is tried again


class Lending:
    def __init__(
        self, options: ServeOptions, switch: StopSwitch, say: Callable[[str], None]
    ) -> None:
        self._options, self._switch, self._say = options, switch, say
        self._owner = Owner(options.hours)
        self._seats: Sequence[Peer] = ()
        self._goes_gently = False  # asked so, and not taken back since
        self._one = asyncio.Lock()  # an act at a time
        self._told: Wish = "lend"

    async def keep(self, seats: Sequence[Peer]) -> None:
        """Have these seats do what holds, now and from now on. Never returns."""
        self._seats = seats
        try:
            while True:
                try:
                    await self._follow()
                    await asyncio.sleep(LOOK_S)
                except RunError as error:
                    self._say(f"it stays paused: {error}; it is tried again in {AGAIN_S:.0f} s")
                    await asyncio.sleep(AGAIN_S)
        finally:
            self._seats = ()

    async def answer(self, act: str) -> Told:
        """Do what the owner asks. Raises UsageError for what is nothing to ask for."""
        began_at, error = time.monotonic(), ""
        try:
            match act:
                case "status":
                    pass
                case "pause":
                    self._owner.pause()
                    await self._follow()
                case "resume":
                    self._owner.resume(_day_s())
                    await self._follow()
                case "stop":
                    self._switch.throw("its owner has stopped it")
                case _:
                    raise UsageError(f"{act!r:.40} is nothing to ask{did_you_mean(act, ACTS)}")
        except RunError as problem:
            error = str(problem)
        seats = self._seats if act == "pause" else ()
        return Told(
            os.getpid(),
            str(self._options.line.run),
            tuple(seat.seat for seat in self._seats) or self._options.stages,
            self._state,
            self._options.device,
            seconds=time.monotonic() - began_at,
            freed_bytes=sum(seat.lent.freed_bytes for seat in seats),
            alone=tuple(seat.seat for seat in seats if seat.lent.is_alone),
            error=error,
        )

    async def _follow(self) -> None:
        """Make it so. Raises RunError where the device does not take the state again."""
        async with self._one:
            wish = self._owner.wish(_day_s())
            self._tell(wish)
            seats = list(self._seats)
            match wish:
                case "take":
                    await _pause([seat for seat in seats if not seat.lent.is_free])
                case "end gently" if not self._goes_gently:
                    for seat in seats:
                        seat.lent.pause(gently=True)
                case "lend":
                    for seat in seats:
                        if seat.lent.is_paused or self._goes_gently:
                            await seat.lent.resume()
            self._goes_gently = wish == "end gently"

    def _tell(self, wish: Wish) -> None:
        """Tell the owner what their hours have done, when that changes."""
        hours, before = self._owner.hours, self._told
        self._told = wish
        if hours is None or wish == before:
            return
        match wish:
            case "lend":
                self._say("it is lent this machine, and serves")
            case "end gently":
                self._say(f"its hours, {hours}, end in {AHEAD_S:.0f} s: it pauses before they do")
            case "take":
                self._say(f"it is paused; its hours are {hours}, and `swarmrt resume` goes on now")

    @property
    def _state(self) -> State:
        if self._switch.thrown:
            return "leaving"
        return "paused" if self._told == "take" else "serving"


async def _pause(seats: Sequence[Peer]) -> None:
    for seat in seats:
        seat.lent.pause()
    for seat in seats:
        await seat.lent.until_free()


def _day_s() -> float:
    """Return the time of this day by the machine's clock, with its summer time."""
    now = time.localtime()
    return 3600.0 * now.tm_hour + 60 * now.tm_min + now.tm_sec
