"""A look at which of many addresses answer.

A daemon dials the addresses at which it is to join one after the other, and waits for each that is
dead. So all are dialed here first, together, with a deadline that is short and grows; the daemon
gets those where a libp2p host says its first word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from swarmrt.runtime.reach.addresses import host_of

log = logging.getLogger("swarmrt.directory")

MULTISTREAM = b"\x13/multistream/1.0.0\n"  # what both ends of a libp2p connection say first
DEADLINES_S = (1.0, 2.0, 4.0)  # one after the other, while nobody has answered
MORE_S = 0.25  # for others, once one has answered
MOST_AT_ONCE = 64


async def answering(addresses: Sequence[str]) -> list[str]:
    """Return those that answer, in their order, and those that are not dialed here: names, and more
    than so many. One alone need not be chosen."""
    if len(addresses) < 2:
        return list(addresses)
    ends = list(dict.fromkeys(end for a in addresses if (end := _end_of(a)) is not None))
    left, found = ends[:MOST_AT_ONCE], set[tuple[str, int]]()
    asked = set(left)
    for deadline_s in DEADLINES_S:
        found, left = await _dial_all(left, deadline_s)
        if found or not left:
            break
    dead = asked - found
    log.debug("%d of %d hosts do not answer", len(dead), len(asked))
    return [address for address in addresses if _end_of(address) not in dead]


async def _dial_all(
    ends: Sequence[tuple[str, int]], deadline_s: float
) -> tuple[set[tuple[str, int]], list[tuple[str, int]]]:
    """Dial all together; return who has answered, and who has not said anything yet."""
    dials = {asyncio.create_task(_answers(*end)): end for end in ends}
    try:
        loop = asyncio.get_running_loop()
        until, pending = loop.time() + deadline_s, set(dials)
        found = set[tuple[str, int]]()
        while pending and (left_s := until - loop.time()) > 0:
            done, pending = await asyncio.wait(
                pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
            answered = {dials[dial] for dial in done if dial.result()}
            if answered and not found:
                until = min(until, loop.time() + MORE_S)
            found |= answered
        return found, [dials[dial] for dial in pending]
    finally:
        for dial in dials:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)


async def _answers(host: str, port: int) -> bool:
    """Return whether a libp2p host is there. It may never say anything: whoever asks has a
    deadline."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    try:
        writer.write(MULTISTREAM)
        return await reader.readexactly(1) == MULTISTREAM[:1]
    except (OSError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.close()


def _end_of(multiaddr: str) -> tuple[str, int] | None:
    """Return the host and the TCP port that are dialed first on the way to an address."""
    host, parts = host_of(multiaddr), multiaddr.split("/")
    if host is None or parts[3:4] != ["tcp"] or not parts[4:5] or not parts[4].isdecimal():
        return None
    return host, int(parts[4])
