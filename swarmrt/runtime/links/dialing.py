"""Reaching a peer by the best carrier that works, and remembering which did not."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.runtime.carriers.carriers import DIAL_S, Carrier, Connection
from swarmrt.runtime.reach.addresses import Reach

log = logging.getLogger("swarmrt.links")

MAX_DIAL_S = 30.0  # with a peer that is far away, or behind a link that is full
TIMES = 4  # as long as the last connection took to come up
MAX_DIALS = 32  # at a time; more wait for their turn
HEAR_S = 1.0  # for the addresses of a peer of whom others have told before the directory
MAX_KNOWN = 4096  # peers whose addresses are remembered
AVOID_S = 5.0  # after a carrier's first failure; doubled by each that follows
MAX_AVOID_S = 300.0
AGAIN_S = 0.1  # until a peer that no carrier reaches is dialed again; doubled by each failure
MAX_AGAIN_S = 10.0


@dataclass
class Failures:
    number: int
    avoid_until: float  # by the monotonic clock

    def after(self, first_s: float, most_s: float) -> None:
        """Count one more failure: the wait is twice as long as after the last one."""
        self.avoid_until = time.monotonic() + min(first_s * 2**self.number, most_s)
        self.number = min(self.number + 1, 10)


class Dialer:
    """Carriers in the order of preference, and where peers are."""

    def __init__(
        self,
        carriers: Sequence[Carrier],
        reach: Reach | None = None,
        refused: Counter[str] | None = None,
    ) -> None:
        """Without `reach` any address is dialed. Those that are not are counted in `refused`."""
        self._carriers, self._reach = carriers, reach
        self._refused: Counter[str] = Counter() if refused is None else refused
        self._turns = asyncio.Semaphore(MAX_DIALS)
        self._addresses: dict[PeerId, Mapping[str, tuple[str, ...]]] = {}
        self._awaited: dict[PeerId, asyncio.Event] = {}  # set when addresses become known
        self._failures: dict[tuple[PeerId, str], Failures] = {}
        self._unreachable: dict[PeerId, Failures] = {}
        self._patience_s: dict[tuple[PeerId, str], float] = {}  # with carriers, learned
        self._not_understood: dict[PeerId, str] = {}  # why, of those that were reached at last

    def know(self, peer: PeerId, addresses: Mapping[str, Sequence[str]]) -> None:
        """Learn a peer's addresses from its record, by the carrier's name. New ones are tried
        anew."""
        known = {carrier.name: self._within_reach(carrier, addresses) for carrier in self._carriers}
        earlier = self._addresses.pop(peer, {})
        for carrier in self._carriers:
            if known.get(carrier.name) != earlier.get(carrier.name):
                self._failures.pop((peer, carrier.name), None)
                self._unreachable.pop(peer, None)
        if known != earlier:
            announced = sum(len(addresses.get(carrier.name, ())) for carrier in self._carriers)
            self._refused["addresses"] += announced - sum(map(len, known.values()))
        self._addresses[peer] = known
        if peer in self._awaited:
            self._awaited[peer].set()
        if len(self._addresses) > MAX_KNOWN:
            self._forget(next(iter(self._addresses)))

    def known(self, peer: PeerId, carrier: str) -> Sequence[str]:
        """A peer's addresses for the carrier of that name."""
        return self._addresses.get(peer, {}).get(carrier, ())

    def all_known(self, carrier: str) -> dict[PeerId, Sequence[str]]:
        """Return the addresses of all peers for the carrier of that name, the latest ones last."""
        known = {peer: its.get(carrier, ()) for peer, its in self._addresses.items()}
        return {peer: its for peer, its in known.items() if its}

    def check_due(self, peer: PeerId) -> None:
        """Check that a peer may be dialed now. Raises RunError while one that failed is to be left
        alone."""
        failures = self._unreachable.get(peer)
        if failures is not None and (left_s := failures.avoid_until - time.monotonic()) > 0:
            raise RunError(f"cannot reach {peer}; it is dialed again in {left_s:.1f} s")

    def reached(self, peer: PeerId) -> None:
        """Forget a peer's failures: there is a connection to it, whoever has dialed."""
        self._unreachable.pop(peer, None)

    def not_understood(self, peer: PeerId, why: str) -> None:
        """Note that a peer was reached, and that no version of the protocol is common to both."""
        if peer in self._addresses:
            self._not_understood[peer] = why

    def why_not_understood(self, peer: PeerId) -> str | None:
        """Return why a peer is not understood, if it was when it was reached at last."""
        return self._not_understood.get(peer)

    async def dial(self, peer: PeerId) -> Connection:
        """Connect to the peer. Raises RunError when no carrier reaches it."""
        self._not_understood.pop(peer, None)
        why = "it announces no address that links.link allows and that is dialed from here"
        known = await self._known_soon(peer)
        timed_out = []
        possible = [c for c in self._carriers if c.may_reach(known.get(c.name, ()))]
        for carrier in possible:
            is_last = carrier is possible[-1]
            if not is_last and self._is_avoided(peer, carrier):
                continue
            try:
                connection = await self._dial(carrier, peer, known.get(carrier.name, ()))
            except (OSError, RunError) as error:
                why = str(error) or f"it did not answer in {self.patience_s(peer, carrier):.0f} s"
                if isinstance(error, TimeoutError):
                    timed_out.append(carrier)
                if not is_last:
                    self._avoid(peer, carrier, why)
            else:
                self._failures.pop((peer, carrier.name), None)
                self.reached(peer)
                return connection
        for carrier in timed_out:  # perhaps they are only slow
            self._be_patient(peer, carrier, 2 * self.patience_s(peer, carrier))
        failures = self._unreachable.setdefault(peer, Failures(0, 0.0))
        failures.after(AGAIN_S, MAX_AGAIN_S)
        raise RunError(f"cannot reach {peer}: {why}")

    def is_better(self, one: str, other: str) -> bool:
        """Return whether a carrier of one name is preferred to that of another one."""
        names = [carrier.name for carrier in self._carriers]
        return one in names and other in names and names.index(one) < names.index(other)

    def has_better(self, name: str) -> bool:
        """Return whether another carrier is preferred to the one of that name."""
        return any(self.is_better(carrier.name, name) for carrier in self._carriers)

    def better_due_s(self, peer: PeerId, than: str) -> float:
        """Return in how many seconds a better carrier may be tried; infinity when none can be."""
        failures = [self._failures.get((peer, c.name)) for c in self._better(peer, than)]
        now = time.monotonic()
        return min((one.avoid_until - now if one else 0.0 for one in failures), default=math.inf)

    async def dial_better(self, peer: PeerId, than: str) -> Connection:
        """Connect to a peer by a better carrier. Raises RunError or OSError.

        It counts as a failure until `works`: a connection alone is no link.
        """
        for carrier in self._better(peer, than):
            if not self._is_avoided(peer, carrier):
                self.tried(peer, carrier.name)
                return await self._dial(carrier, peer, self.known(peer, carrier.name))
        raise RunError(f"no better way to {peer} is known")

    def tried(self, peer: PeerId, name: str) -> None:
        """Leave a carrier alone for a while, each time for longer, if nothing comes of it."""
        self._failures.setdefault((peer, name), Failures(0, 0.0)).after(AVOID_S, MAX_AVOID_S)

    def works(self, peer: PeerId, name: str) -> None:
        """Forget the failures of a carrier: there is a link by it."""
        self._failures.pop((peer, name), None)

    def _better(self, peer: PeerId, than: str) -> list[Carrier]:
        some = [c for c in self._carriers if self.is_better(c.name, than)]
        return [c for c in some if c.may_reach(self.known(peer, c.name))]

    async def dial_again(self, peer: PeerId, carrier_name: str) -> Connection:
        """A further connection to a peer by the carrier that reached it. Raises RunError or
        OSError."""
        addresses = self._addresses.get(peer, {}).get(carrier_name, ())
        carrier = next(c for c in self._carriers if c.name == carrier_name)
        return await self._dial(carrier, peer, addresses)

    async def _dial(self, carrier: Carrier, peer: PeerId, addresses: Sequence[str]) -> Connection:
        patience_s, loop = self.patience_s(peer, carrier), asyncio.get_running_loop()
        async with self._turns, asyncio.timeout(patience_s):
            began = loop.time()
            connection = await carrier.dial(peer, addresses, patience_s)
        self._be_patient(peer, carrier, TIMES * (loop.time() - began))
        return connection

    def patience_s(self, peer: PeerId, carrier: Carrier) -> float:
        """Return how long a connection may take to come up.

        What one has taken is known, and after a time that was too short it is twice as long: a
        deadline that cannot grow keeps a slow link out for ever.
        """
        return self._patience_s.get((peer, carrier.name), DIAL_S)

    def most_patience_s(self, peer: PeerId) -> float:
        """Return it for the slowest carrier."""
        return max(self.patience_s(peer, carrier) for carrier in self._carriers)

    def _be_patient(self, peer: PeerId, carrier: Carrier, seconds: float) -> None:
        self._patience_s[peer, carrier.name] = max(DIAL_S, min(seconds, MAX_DIAL_S))

    async def _known_soon(self, peer: PeerId) -> Mapping[str, Sequence[str]]:
        """Return a peer's addresses. Those of one that nothing is known of are waited for a moment:
        otherwise only the last carrier would be tried, and the link would stay there."""
        if peer not in self._addresses and len(self._carriers) > 1:
            awaited = self._awaited.setdefault(peer, asyncio.Event())
            try:
                async with asyncio.timeout(HEAR_S):
                    await awaited.wait()
            except TimeoutError:
                log.debug("nothing is known of where %s is", peer)
            self._awaited.pop(peer, None)
        return self._addresses.get(peer, {})

    def _within_reach(
        self, carrier: Carrier, addresses: Mapping[str, Sequence[str]]
    ) -> tuple[str, ...]:
        announced = addresses.get(carrier.name, ())
        return tuple(announced if self._reach is None else carrier.within(self._reach, announced))

    def _forget(self, peer: PeerId) -> None:
        self._addresses.pop(peer, None)
        self._unreachable.pop(peer, None)
        self._not_understood.pop(peer, None)
        for carrier in self._carriers:
            self._failures.pop((peer, carrier.name), None)
            self._patience_s.pop((peer, carrier.name), None)

    def _is_avoided(self, peer: PeerId, carrier: Carrier) -> bool:
        failures = self._failures.get((peer, carrier.name))
        return failures is not None and time.monotonic() < failures.avoid_until

    def _avoid(self, peer: PeerId, carrier: Carrier, why: str) -> None:
        self.tried(peer, carrier.name)
        log.info("%s links to %s fail for now: %s", carrier.name, peer, why)
