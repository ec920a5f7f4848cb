"""Finding the others again after the daemon of this process was gone, and knows nobody any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.runtime.daemon.daemon import Daemon
from swarmrt.runtime.directory.directory import Directory

log = logging.getLogger("swarmrt.daemon")

MEET_S = 10.0  # for one of them
MAX_MET = 32  # at a time
FIRST_PAUSE_S = 1.0  # before it is tried again; doubled by each try
MAX_PAUSE_S = 30.0


async def meet_again(
    daemon: Daemon, directory: Directory, others: Mapping[PeerId, Sequence[str]]
) -> None:
    """Connect to others, of these addresses, until a node of the directory is among them.

    Who answers calls on the rest. While nobody does, this process is alone, and its own node holds
    what it writes.
    """
    some = {peer: its for peer, its in list(others.items())[-MAX_MET:] if peer != daemon.peer_id}
    pause_s = FIRST_PAUSE_S
    while some and not any(
        await asyncio.gather(*(_meet(daemon, directory, *one) for one in some.items()))
    ):
        log.info("nobody of the directory answers yet; it is tried again")
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, MAX_PAUSE_S)


async def _meet(
    daemon: Daemon, directory: Directory, peer: PeerId, addresses: Sequence[str]
) -> bool:
    try:
        async with asyncio.timeout(MEET_S):
            await daemon.connect(peer, addresses)
            return await directory.meet(peer)
    except (OSError, EOFError, RunError) as error:
        log.debug("%s is not met: %s", peer, error or type(error).__name__)
        return False
