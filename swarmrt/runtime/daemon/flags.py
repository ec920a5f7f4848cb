"""The flags that the libp2p daemon is started with, by where its process can be reached."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from swarmrt.runtime.reach.place import Place, Standing

RELAYED_BYTES = 1 << 50  # of one connection: it ends by its ends, and not by the relay
RELAYED_TIME = "8760h"  # a year
RELAYED_CONNECTIONS = 64  # of each peer, at a time
RELAY_BUFFER_BYTES = 256 << 10  # each way, for each connection


def daemon_environment(standing: Standing) -> dict[str, str]:
    """Return the environment of a daemon: one thread for one that relays.

    It starts two services for that, one of which ends connections after 128 KiB. With one thread it
    is nearly always the other one that comes last, and serves (`relaying` makes sure).
    """
    return {**os.environ, **({"GOMAXPROCS": "1"} if standing is Standing.PUBLIC else {})}


def daemon_flags(
    control: str, identity: Path, place: Place, standing: Standing, bootstrap: Sequence[str]
) -> list[str]:
    flags = [
        f"-listen={control}",
        f"-id={identity}",
        f"-hostAddrs={','.join(place.multiaddrs)}",
        "-tls=1",
        "-connManager=1",
        "-relay=1",
        "-autonat=1",  # with which holes are punched as well
        "-dhtClient" if standing is Standing.BEHIND else "-dhtServer",
    ]
    match standing:
        case Standing.PUBLIC:
            flags += [
                "-forceReachabilityPublic=1",
                f"-relayDataLimit={RELAYED_BYTES}",
                f"-relayTimeLimit={RELAYED_TIME}",
                f"-relayMaxCircuits={RELAYED_CONNECTIONS}",
                f"-relayBufferSize={RELAY_BUFFER_BYTES}",
            ]
        case Standing.BEHIND:
            flags += ["-forceReachabilityPrivate=1", "-relayService=0"]
    if place.announced:
        flags.append(f"-announceAddrs={','.join(one.multiaddr for one in place.announced)}")
    if place.upnp:
        flags.append("-natPortMap=1")
    if bootstrap:
        flags += ["-b=1", f"-bootstrapPeers={','.join(bootstrap)}"]
    return flags
