"""Options about where a process can be reached; every command that others are to reach has them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from pathlib import Path

import typer

from swarmrt.runtime.reach.address_book import AddressBook
from swarmrt.runtime.reach.addresses import host_of
from swarmrt.runtime.reach.place import LOOPBACK_HOST, Place, everywhere, parse_place, pick_port

LISTEN = typer.Option(
    [],
    "--listen",
    metavar="ADDR",
    help="IP address or multiaddr to listen at; may be repeated. By default all addresses, or this "
    "machine alone where those that are joined at are on it.",
)
PORT = typer.Option(
    None,
    "--port",
    metavar="N",
    help="Listen at TCP N (libp2p), TCP N+1 (direct links) and UDP N+1; or at three numbers that "
    "are written like 7000,7001,7001.",
)
ANNOUNCE = typer.Option(
    [],
    "--announce",
    metavar="ADDR",
    help="Where others reach this machine, if it does not have that address itself, as in a "
    "container: an IP address, or a multiaddr with the port there; may be repeated.",
)
UPNP = typer.Option(False, "--upnp", help="Ask the router, by UPnP, to open the port of libp2p.")


def place_of(
    join: Sequence[str],
    listen: Sequence[str],
    port: str | None,
    announce: Sequence[str],
    upnp: bool,
) -> Place:
    """Return where a process listens. Raises UsageError."""
    if not listen:
        listen = [LOOPBACK_HOST] if join and all(map(_is_loopback, join)) else everywhere()
    return parse_place(listen, port, announce, upnp=upnp)


def place_of_trainer(
    run_dir: Path,
    join: Sequence[str],
    listen: Sequence[str],
    port: str | None,
    announce: Sequence[str],
    upnp: bool,
) -> Place:
    """Return where a trainer listens: at the ports that it had before. Raises UsageError."""
    plain = place_of(join, listen, port, [], upnp)
    if port is None and not plain.is_loopback and not plain.ports.libp2p:
        kept = AddressBook(run_dir).ports
        numbers = (kept.libp2p, kept.direct, kept.udp)
        port = ",".join(map(str, numbers)) if kept.are_chosen else str(pick_port())
    return place_of(join, listen, port, announce, upnp)


def place_of_doctor(
    join: Sequence[str],
    listen: Sequence[str],
    port: str | None,
    announce: Sequence[str],
    upnp: bool,
) -> Place:
    """Return where a process would listen, at ports that others can try. Raises UsageError."""
    plain = place_of(join, listen, port, [], upnp)
    if join and not plain.is_loopback and not plain.ports.are_chosen:
        port = str(plain.ports.libp2p or pick_port())
    return place_of(join, listen, port, announce, upnp)


def _is_loopback(multiaddr: str) -> bool:
    host = host_of(multiaddr)
    try:
        return host is not None and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # it is refused later
