"""Addresses of direct links, `IP:PORT`, as records have them."""

from __future__ import annotations

import ipaddress

MAX_CHARACTERS = 64


def format_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(address: str) -> tuple[str, int]:
    """Host and port. Raises ValueError for what is not a numeric IP address and a port.

    Names are not taken: a stranger's record would make us ask our name servers for it.
    """
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        parsed: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv6Address(host[1:-1])
    else:
        parsed = ipaddress.IPv4Address(host)
    if not (colon and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise ValueError(f"{address!r:.80} has no port")
    return str(parsed), int(port)


def host_of(multiaddr: str) -> str | None:
    """The IP address in a libp2p multiaddr; None when it has none."""
    match multiaddr.split("/"):
        case ["", "ip4" | "ip6", host, *_]:
            return host
    return None
