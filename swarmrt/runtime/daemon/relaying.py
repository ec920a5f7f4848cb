"""Making sure that a daemon that others can reach relays as much as training takes.

hivemind's daemon starts two services for that, one of which ends connections after 128 KiB. The
one that comes last serves, and which that is, is left to chance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from swarmrt.errors import SwarmError
from swarmrt.ids import PeerId
from swarmrt.runtime.access.identity import new_identity
from swarmrt.runtime.daemon.daemon_process import DaemonProcess
from swarmrt.runtime.daemon.reserving import PROTOCOL, OfNoUse, reserve
from swarmrt.runtime.reach.place import Place, Standing

ASK_S = 10.0  # it is on this machine


async def relays_too_little(peer: PeerId, addresses: Sequence[str]) -> bool:
    """Return whether a daemon of this machine ends the connections that it relays too soon.

    Asks it for a place, as another daemon would, which ends then. Where that one cannot be
    started, or cannot get to it, nothing is known against it.
    """
    try:
        asker = await DaemonProcess.start(new_identity(), Place(), Standing.BEHIND, ())
    except SwarmError:
        return False
    try:
        async with asyncio.timeout(ASK_S):
            await asker.connect(peer, addresses)
            await reserve(*await asker.open_stream(peer, PROTOCOL))
    except OfNoUse:
        return True
    except (SwarmError, OSError, EOFError):
        return False
    finally:
        await asker.close()
    return False
