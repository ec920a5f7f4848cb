"""The command `swarmrt bootstrap`: a plain directory node that anyone can keep up."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import typer

from swarmrt.cli.options.papers import (
    JOIN_LINE,
    OWNER,
    PAPERS_ON_STDIN,
    given_line,
    line_of_parent,
    owner_signer,
)
from swarmrt.cli.options.processes import IDENTITY, JOIN, WITH_PARENT
from swarmrt.cli.options.reach import ANNOUNCE, LISTEN, PORT, UPNP, place_of
from swarmrt.runtime.process.stopping import StopSwitch


def bootstrap(
    line_text: str | None = JOIN_LINE,
    run_name: str | None = typer.Option(
        None, "--run", metavar="NAME", help="Keep the directory of this run of yours."
    ),
    listen: list[str] = LISTEN,
    port: str | None = PORT,
    announce: list[str] = ANNOUNCE,
    upnp: bool = UPNP,
    join: list[str] = JOIN,
    identity: Path | None = IDENTITY,
    as_json: bool = typer.Option(False, "--json", help='Print {"join": "…"} as the first line.'),
    owner: Path | None = OWNER,
    with_parent: bool = WITH_PARENT,
    papers_on_stdin: bool = PAPERS_ON_STDIN,
) -> None:
    """Keep the directory up: a node that serves nothing, for others to join at.

    With a join line, or --run for a run of yours, it is a node of that run, and answers nobody but
    those who belong to it. Without, it is open to all, and only to runs with open access.
    """
    from swarmrt.cli.process.running import run
    from swarmrt.runtime.directory.network import open_network
    from swarmrt.runtime.faults.faults import LinkFaults
    from swarmrt.trust.papers import GuestsPapers, OwnersPapers, Papers

    papers: Papers | None = None
    line = line_of_parent() if papers_on_stdin else given_line(line_text)
    private = run_name is not None or (line is not None and line.invite is not None)
    if run_name is not None:
        papers = OwnersPapers(owner_signer(run_name, owner), is_trainer=False)
    elif line is not None:
        papers = GuestsPapers(line)
    at = [*join, *(line.addresses if line is not None else ())]
    place = place_of(at, listen, port, announce, upnp)
    faults = LinkFaults() if with_parent else None

    async def command(switch: StopSwitch) -> None:
        async with open_network(at, place, identity, faults, papers, private=private) as network:
            addresses = network.daemon.addresses()
            if as_json:
                print(json.dumps({"join": addresses[0]}), flush=True)
            else:
                print(network.describe())
                print("the directory is up; others join with:\n")
                print(join_line(addresses), flush=True)
            stop = asyncio.Event()
            with switch.calls(lambda _: stop.set()):
                await network.while_up(stop.wait())

    run(command, with_parent=with_parent, faults=faults)


def join_line(addresses: list[str]) -> str:
    """Return what to add to another command, ready to copy."""
    return "  " + " ".join(f"--join {address}" for address in addresses)
