"""Addresses of direct links, `IP:PORT`, as records have them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

MAX_CHARACTERS = 64
MAX_ADDRESSES = 8  # of one process


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


def visible_addresses(sockname: Sequence[Any], visible: Sequence[str]) -> list[str]:
    """Where a socket of this name is reached: the `visible` hosts stand for 0.0.0.0 and ::."""
    host, port = sockname[:2]
    address = ipaddress.ip_address(host)
    if not address.is_unspecified:
        return [format_address(host, port)]
    seen = map(ipaddress.ip_address, visible)
    others = [o for o in seen if o.version == address.version and not o.is_link_local]
    return [format_address(str(other), port) for other in others]


def host_of(multiaddr: str) -> str | None:
    """The IP address in a libp2p multiaddr; None when it has none."""
    match multiaddr.split("/"):
        case ["", "ip4" | "ip6", host, *_]:
            return host
    return None


def is_global(host: str) -> bool:
    """Whether an IP address is one of the internet's, and not of somebody's own network."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_global
    return address.is_global and not address.is_multicast
