"""Which carrier a peer is dialed by, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.runtime.carriers.carriers import DIAL_S, Carrier, Connection, Welcome
from swarmrt.runtime.links import dialing
from swarmrt.runtime.links.dialing import Dialer
from swarmrt.runtime.reach.addresses import Reach

PEER = PeerId("peer")


class Nowhere(Carrier):
    """A carrier that reaches nobody, and notes that it was tried."""

    def __init__(self, name: str, needs_addresses: bool, tried: list[str]) -> None:
        self.name, self._needs_addresses, self._tried = name, needs_addresses, tried

    async def start(self, welcome: Welcome) -> None: ...

    def addresses(self) -> list[str]:
        return []

    def may_reach(self, addresses: Sequence[str]) -> bool:
        return bool(addresses) or not self._needs_addresses

    def within(self, reach: Reach, addresses: Sequence[str]) -> list[str]:
        return list(addresses)

    async def dial(
        self, peer: PeerId, addresses: Sequence[str], patience_s: float = DIAL_S
    ) -> Connection:
        self._tried.append(self.name)
        raise RunError(f"{self.name} reaches nobody")

    async def close(self) -> None: ...


def tried(meanwhile: Callable[[Dialer], None], names: Sequence[str] = ("direct", "libp2p")) -> str:
    """Dial a peer of whom nothing is known yet, and return which carriers were tried."""
    found: list[str] = []

    async def story() -> None:
        dialer = Dialer([Nowhere(name, name == "direct", found) for name in names])
        dial = asyncio.create_task(dialer.dial(PEER))
        await asyncio.sleep(0)
        meanwhile(dialer)
        with pytest.raises(RunError):
            await dial

    asyncio.run(story())
    return ", ".join(found)


def test_addresses_that_come_soon_are_waited_for() -> None:
    """Others tell of a peer before the directory has been read: it is reached directly as well."""
    assert tried(lambda dialer: dialer.know(PEER, {"direct": ["here"]})) == "direct, libp2p"


def test_addresses_that_do_not_come_are_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dialing, "HEAR_S", 0.01)
    assert tried(lambda dialer: None) == "libp2p"


def test_nothing_is_waited_for_where_there_is_one_carrier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "HEAR_S", 3600.0)
    assert tried(lambda dialer: None, ("libp2p",)) == "libp2p"
