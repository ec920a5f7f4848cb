"""`swarmrt bootstrap`: a plain directory node that anyone can keep up."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import typer

from swarmrt.cli.reach import ANNOUNCE, LISTEN, PORT, UPNP, place_of
from swarmrt.runtime.stopping import StopSwitch

JOIN = typer.Option(
    [], "--join", metavar="ADDR", help="Address of a process of the swarm; may be repeated."
)
IDENTITY = typer.Option(
    None, "--identity", metavar="FILE", help="Key file; made if missing. Without one: a new key."
)
LINK_DELAY = typer.Option(
    0.0,
    "--link-delay",
    metavar="SECONDS",
    min=0.0,
    max=60.0,
    help="Experiments: every message to another process is on its way for this much longer.",
)
WITH_PARENT = typer.Option(False, "--with-parent", hidden=True)


def bootstrap(
    listen: list[str] = LISTEN,
    port: str | None = PORT,
    announce: list[str] = ANNOUNCE,
    upnp: bool = UPNP,
    join: list[str] = JOIN,
    identity: Path | None = IDENTITY,
    as_json: bool = typer.Option(False, "--json", help='Print {"join": "…"} as the first line.'),
    with_parent: bool = WITH_PARENT,
) -> None:
    """Keep the directory up: a node that serves nothing, for others to join at."""
    from swarmrt.cli.running import run
    from swarmrt.runtime.network import open_network

    place = place_of(join, listen, port, announce, upnp)

    async def command(switch: StopSwitch) -> None:
        async with open_network(join, place, identity) as network:
            addresses = network.daemon.addresses()
            if as_json:
                print(json.dumps({"join": addresses[0]}), flush=True)
            else:
                print(network.describe())
                print("the directory is up; others join with:\n")
                print(join_line(addresses), flush=True)
            stop = asyncio.Event()
            with switch.calls(lambda _: stop.set()):
                await stop.wait()

    run(command, with_parent=with_parent)


def join_line(addresses: list[str]) -> str:
    """What to add to another command, ready to copy."""
    return "  " + " ".join(f"--join {address}" for address in addresses)
