"""Addresses as records have them: `IP:PORT` of direct links, and libp2p's multiaddrs.

Those of others are what others want us to dial. `Reach` says which of them are dialed: none that
leads into a network in which this process does not take part itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_CHARACTERS = 64
MAX_MULTIADDR_CHARACTERS = 192  # with a relay's id and the peer's own
MAX_ADDRESSES = 8  # of one process


def format_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(address: str) -> tuple[str, int]:
    """Host and port. Raises ValueError for what is not a numeric IP address and a port.

    Names are not taken: a stranger's record would make us ask our name servers for it.
    """
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        parsed: IpAddress = ipaddress.IPv6Address(host[1:-1])
    else:
        parsed = ipaddress.IPv4Address(host)
    if not (colon and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise ValueError(f"{address!r:.80} has no port")
    return str(parsed), int(port)


def visible_addresses(sockname: Sequence[Any], visible: Sequence[str]) -> list[str]:
    """Return where a socket of this name is reached: the `visible` hosts stand for 0.0.0.0 and
    ::."""
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


def port_of(multiaddr: str) -> int:
    """Return the TCP port in a libp2p multiaddr; 0 when it has none."""
    match multiaddr.split("/"):
        case ["", "ip4" | "ip6", _, "tcp", port, *_] if port.isdigit():
            return int(port)
    return 0


# Networks that are somebody's own, with whose members only their members talk.
PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # all of IPv6 that is assigned to anybody
# IPv6 addresses with one of IPv4 in them, which could be any: 6to4 and Teredo.
TUNNELS = tuple(ipaddress.ip_network(network) for network in ("2002::/16", "2001::/32"))


class Reach:
    """The addresses of others that this process dials, judged by those that it has itself."""

    def __init__(self, own: Sequence[str]) -> None:
        """`own` are the IP addresses at which it listens, and at which its user told it to join."""
        ours = [_unwrapped(ipaddress.ip_address(host)) for host in own]
        ours = [address for address in ours if not address.is_unspecified]
        self._only_here = all(address.is_loopback for address in ours)
        self._private = [n for n in PRIVATE if any(address in n for address in ours)]

    def allows(self, host: str) -> bool:
        """Return whether an IP address may be dialed, or a datagram sent there."""
        try:
            address = _unwrapped(ipaddress.ip_address(host))
        except ValueError:
            return False
        if address.is_loopback:
            return self._only_here
        if any(address in network for network in self._private):
            return True
        return _is_global(address)

    def direct(self, addresses: Sequence[str]) -> list[str]:
        """Return those `IP:PORT`s that may be dialed."""
        return [a for a in addresses if len(a) <= MAX_CHARACTERS and self._may_dial(a)][
            :MAX_ADDRESSES
        ]

    def multiaddrs(self, addresses: Sequence[str]) -> list[str]:
        """Return those multiaddrs that may be dialed. Names are not: our name servers would be
        asked."""
        return [a for a in addresses if self._may_connect(a)][:MAX_ADDRESSES]

    def _may_dial(self, address: str) -> bool:
        try:
            host, _ = parse_address(address)
        except ValueError:
            return False
        return self.allows(host)

    def _may_connect(self, multiaddr: str) -> bool:
        host = host_of(multiaddr)
        if host is None or len(multiaddr) > MAX_MULTIADDR_CHARACTERS:
            return False
        further = multiaddr.split("/")[3:]
        has_another = any(part in ("ip4", "ip6") or part.startswith("dns") for part in further)
        return not has_another and self.allows(host)


def is_global(host: str) -> bool:
    """Return whether an IP address is one of the internet's, and not of somebody's own network."""
    return _is_global(_unwrapped(ipaddress.ip_address(host)))


def _is_global(address: IpAddress) -> bool:
    return address.is_global and not address.is_multicast and _is_assigned(address)


def _is_assigned(address: IpAddress) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return True
    return address in GLOBAL_UNICAST and not any(address in tunnel for tunnel in TUNNELS)


def _unwrapped(address: IpAddress) -> IpAddress:
    """An IPv4 address also where it is written as one of IPv6."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
