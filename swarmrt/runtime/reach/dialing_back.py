"""Dialing back whoever asks for it, so that it learns whether others can reach it.

A process that dials where others tell it to is a tool against third parties. So this one dials only
the address from which the asking link itself comes, says no more than whether it found there
what it was told to look for, and does that seldom.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.messages import DialBack, DialedBack
from swarmrt.runtime.carriers.carriers import Carrier
from swarmrt.runtime.limits.rates import Bucket, Buckets, Rate
from swarmrt.runtime.links.greetings import source_of
from swarmrt.runtime.reach.addresses import format_address

log = logging.getLogger("swarmrt.dialing")

PATIENCE_S = 5.0  # with one port
EVERY_S = 5.0  # between two requests of one machine, or household, that are answered
RATE_OF_ONE = Rate(1, 1 / EVERY_S)
RATE_OF_ALL = Rate(8, 1)  # so at most 13 are under way at a time
DATAGRAMS = 3  # some may be lost
GREETING = b"/multistream/1.0.0\n"  # what libp2p says first, after the length of it
MAX_PORT = (1 << 16) - 1


def datagram(number: int) -> bytes:
    """Return what a request with this number is answered with by UDP."""
    return b"swarmrt dialed back " + (number & 0xFFFFFFFF).to_bytes(4, "big")


class DialsBack:
    """The service of a process to those who want to be dialed back."""

    def __init__(
        self,
        direct: Carrier | None,
        answer: Callable[[PeerId, DialedBack], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`direct` is the carrier of direct links, where those are allowed; `now` gives seconds."""
        self._direct, self._answer, self._now = direct, answer, now
        self._of_one: Buckets[str] = Buckets(RATE_OF_ONE)
        self._of_all = Bucket(RATE_OF_ALL, now())

    async def answer(self, peer: PeerId, wanted: DialBack, host: str | None) -> None:
        """Dial and say what came of it, or say that nothing was dialed.

        `host` is the address from which the link comes, if that is the peer's own.
        """
        number, affordable = wanted.number, host is None or self._affords(host)
        if not affordable or host is None:
            self._answer(peer, DialedBack(number, "", False, False, affordable))
            return
        _send_datagrams(wanted, host)
        libp2p, direct = await asyncio.gather(
            _greets(host, wanted.libp2p), self._is_there(peer, host, wanted.direct)
        )
        self._answer(peer, DialedBack(number, host, libp2p, direct, affordable))

    def _affords(self, host: str) -> bool:
        """Return whether that address is dialed now. Whoever asks too often takes nothing from
        others."""
        now = self._now()
        return self._of_one.take(source_of(host), 1, now) and self._of_all.take(1, now)

    async def _is_there(self, peer: PeerId, host: str, port: int) -> bool:
        """Return whether the peer itself takes direct links there."""
        if self._direct is None or not 0 < port <= MAX_PORT:
            return False
        try:
            async with asyncio.timeout(PATIENCE_S):
                connection = await self._direct.dial(peer, [format_address(host, port)])
        except (OSError, RunError) as error:
            log.info("dialing %s back at %s fails: %s", peer, host, error or "no answer")
            return False
        connection.abort()
        return True


async def _greets(host: str, port: int) -> bool:
    """Return whether a libp2p daemon answers there."""
    if not 0 < port <= MAX_PORT:
        return False
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                said = await reader.readexactly(1 + len(GREETING))
            finally:
                writer.close()
    except (OSError, EOFError) as error:
        log.info("dialing libp2p back at %s fails: %s", host, error or "no answer")
        return False
    return said[1:] == GREETING


def _send_datagrams(wanted: DialBack, host: str) -> None:
    if not 0 < wanted.udp <= MAX_PORT:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
        sender.setblocking(False)  # what cannot be sent at once is lost, as datagrams may be
        for _ in range(DATAGRAMS):
            sender.sendto(datagram(wanted.number), (host, wanted.udp))
