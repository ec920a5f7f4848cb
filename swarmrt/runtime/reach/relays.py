"""Relays to be reached through: places that this process reserves at them, and keeps.

Who is behind a router cannot be dialed. It asks processes that can be, the relays, to let others
through to it; their daemons do the work. It asks again and again, because a relay forgets who has
lost its connection, and those that have gone come back. libp2p's own way of doing this tries a
relay that has failed it again only an hour later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.runtime.daemon.daemon import Daemon
from swarmrt.runtime.daemon.reserving import PROTOCOL, reserve
from swarmrt.runtime.reach.multiaddrs import CIRCUIT, by_peer, is_direct_and_global
from swarmrt.runtime.reach.place import Standing

log = logging.getLogger("swarmrt.relays")

ASK_S = 10.0  # for one relay
LOOK_S = 30.0  # for a round of them, with an own daemon that may hang
EVERY_S = 15.0
MAX_AVOID_S = 300.0  # until a relay that has refused is asked again; doubled by each refusal
MAX_RELAYS = 4  # that are asked at a time
MAX_KNOWN = 32
NO_RELAY = (
    "this machine is behind a router, and none of the processes that it knows relays to it: peers "
    "behind other routers cannot reach it; `swarmrt doctor` says what helps"
)


@dataclass
class Relay:
    addresses: tuple[str, ...]  # multiaddrs that end with its peer id
    holds: bool = False  # a place for this process
    refusals: int = 0
    ask_at: float = field(default_factory=time.monotonic)


class Relays:
    """Relays that may let others through to this process. `start` first, `close` at the end."""

    def __init__(
        self, daemon: Daemon, join: Sequence[str], found: Callable[[PeerId], Awaitable[object]]
    ) -> None:
        """`found` is called with each relay that answers, again and again."""
        self._daemon, self._found = daemon, found
        self._relays: dict[PeerId, Relay] = {}
        self._on_change: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._said = False
        if daemon.standing in (Standing.PUBLIC, Standing.BEHIND):
            self.consider(join)

    def consider(self, addresses: Sequence[str]) -> None:
        """Consider these processes, which others can reach, as relays."""
        for peer, its in by_peer(list(filter(is_direct_and_global, addresses))).items():
            known = self._relays.get(peer)
            if peer == self._daemon.peer_id:
                continue  # it cannot let itself through
            if known is not None:
                known.addresses = tuple(its)
            elif len(self._relays) < MAX_KNOWN:
                self._relays[peer] = Relay(tuple(its))

    def on_change(self, told: Callable[[], None]) -> None:
        """Call this whenever the daemon's addresses are others than before."""
        self._on_change.append(told)

    def off_change(self, told: Callable[[], None]) -> None:
        """Call this no more."""
        self._on_change.remove(told)

    async def start(self) -> None:
        """Ask once, and again and again from then on."""
        if self._daemon.standing is Standing.HERE:
            return
        await self._look()
        self._task = asyncio.create_task(self._look_again_and_again())
        self._task.add_done_callback(_report)

    async def start_anew(self) -> None:
        """Go on with a daemon that holds no places any more, and say that its addresses are to be
        told again. Raises OSError."""
        for relay in self._relays.values():
            relay.holds, relay.ask_at = False, 0.0
        if self._task is not None:
            async with asyncio.timeout(LOOK_S):
                await self._look()
        for told in self._on_change:
            told()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._look()
            except (OSError, EOFError):  # a time-out too
                log.info("the daemon does not say where others see it; it is asked again")

    async def _look(self) -> None:
        """Renew what is held, and try others while there is too little of it."""
        now = time.monotonic()
        due = [peer for peer, relay in self._relays.items() if relay.ask_at <= now]
        due.sort(key=lambda peer: not self._relays[peer].holds)
        await asyncio.gather(*(self._ask(peer) for peer in due[:MAX_RELAYS]))
        held = [relay for relay in self._relays.values() if relay.holds][:MAX_RELAYS]
        relayed = [_through(relay, self._daemon.peer_id) for relay in held]
        changed = await self._daemon.look_again()
        if changed or relayed != list(self._daemon.relayed):
            self._daemon.relayed = relayed
            for told in self._on_change:
                told()
        if self._daemon.standing is Standing.BEHIND:
            self._say(bool(held))

    async def _ask(self, peer: PeerId) -> None:
        relay = self._relays[peer]
        try:
            async with asyncio.timeout(ASK_S):
                await self._daemon.connect(peer, relay.addresses)
                await reserve(*await self._daemon.open_stream(peer, PROTOCOL))
                await self._found(peer)
        except (RunError, OSError, EOFError) as error:
            why = str(error) or f"no answer in {ASK_S:.0f} s"
            log.info("%s relays nothing to this process: %s", peer, why)
            relay.holds = False
            relay.ask_at = time.monotonic() + min(EVERY_S * 2**relay.refusals, MAX_AVOID_S)
            relay.refusals = min(relay.refusals + 1, 10)
        else:
            relay.holds, relay.refusals, relay.ask_at = True, 0, 0.0

    def _say(self, is_held: bool) -> None:
        """Say it once when nobody relays to a process that needs it."""
        if not is_held and not self._said:
            log.warning("%s", NO_RELAY)
        self._said = not is_held


def _report(task: asyncio.Task[None]) -> None:
    """A bug in it reaches the loop's exception handler."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler(
            {"message": "looking for relays failed", "exception": error, "task": task}
        )


def _through(relay: Relay, me: PeerId) -> str:
    return f"{relay.addresses[0]}{CIRCUIT}/p2p/{me}"
