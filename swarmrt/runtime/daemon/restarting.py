"""Starting the libp2p daemon of this process again, when it is gone.

What does not go through it goes on meanwhile: direct links, beacons, all that is computed. Only
where it cannot be started for a minute this process is of no use for others any more, who would
not find it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from swarmrt.errors import RunError, SwarmError
from swarmrt.runtime.daemon.daemon import Daemon

log = logging.getLogger("swarmrt.daemon")

PATIENCE_S = 60.0  # in which it is tried
FIRST_PAUSE_S = 0.5  # between two tries; doubled by each
MAX_PAUSE_S = 10.0
UP_AGAIN = "the libp2p daemon is up again"
LIVED_S = 30.0  # after which its end has nothing to do with the one before


async def keep_up(daemon: Daemon, returned: Callable[[], Awaitable[None]]) -> None:
    """Start the daemon again whenever it ends by itself. Raises RunError when that fails for too
    long.

    `returned` is called each time that it is up again; an OSError or a SwarmError in it counts as
    one more end.
    """
    loop = asyncio.get_running_loop()
    trouble_since, pause_s, up_since = loop.time(), 0.0, loop.time()
    while True:
        why = await daemon.watch()
        if loop.time() - up_since >= LIVED_S or not pause_s:
            trouble_since, pause_s = loop.time(), 0.0
        log.warning(
            "the libp2p daemon of this process is gone; its last words: %s. It is started again; "
            "what does not go through it goes on",
            why,
        )
        while True:
            if loop.time() - trouble_since > PATIENCE_S:
                raise RunError(
                    "the libp2p daemon of this process is gone, and could not be started again "
                    f"within {PATIENCE_S:.0f} s: {why}"
                )
            await asyncio.sleep(pause_s)
            pause_s = min(max(FIRST_PAUSE_S, 2 * pause_s), MAX_PAUSE_S)
            try:
                await daemon.start_again()
                await returned()
            except (SwarmError, OSError) as error:
                why = str(error) or type(error).__name__
            else:
                break
        up_since = loop.time()
        log.warning("%s, %.1f s after it was gone", UP_AGAIN, up_since - trouble_since)
