"""A process's place: where it listens, at which ports, and what it tells others about that.

libp2p has a TCP port, direct links have another one, and beacons an UDP port. Those who open ports
in a firewall or a router name the first, and the two others are both the next number.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from swarmrt.errors import UsageError
from swarmrt.runtime.reach.addresses import format_address, host_of, is_global

LOOPBACK_HOST = "127.0.0.1"
ANYWHERE = ("0.0.0.0", "::")
MAX_PORT = (1 << 16) - 1
MAX_ANNOUNCED = 4
PICKS = (20000, 32000)  # below those that systems give to outgoing connections
TRIES = 100


@dataclass(frozen=True)
class Ports:
    """The ports of one process, at all of its addresses. The system chooses those that are 0."""

    libp2p: int = 0
    direct: int = 0
    udp: int = 0

    def __str__(self) -> str:
        """Return what to open in a firewall."""
        return f"TCP {self.libp2p}, TCP {self.direct} and UDP {self.udp}"

    @property
    def option(self) -> str:
        """The option that asks for them."""
        if self.direct == self.udp == self.libp2p + 1:
            return f"--port {self.libp2p}"
        return f"--port {self.libp2p},{self.direct},{self.udp}"

    @property
    def are_chosen(self) -> bool:
        return all((self.libp2p, self.direct, self.udp))

    def shifted(self, by: int) -> Ports:
        """Return those of a router that opens other numbers. Raises UsageError."""
        return _checked(Ports(self.libp2p + by, self.direct + by, self.udp + by), "--announce")


@dataclass(frozen=True)
class Announced:
    """An address that others are told, which this machine does not have itself."""

    host: str
    ports: Ports

    @property
    def multiaddr(self) -> str:
        return to_multiaddr(self.host, self.ports.libp2p)


@dataclass(frozen=True)
class Place:
    """The addresses where a process listens: without arguments, on this machine only, at any
    port."""

    hosts: tuple[str, ...] = (LOOPBACK_HOST,)  # IP addresses
    ports: Ports = Ports()
    announced: tuple[Announced, ...] = ()  # instead of its own addresses
    upnp: bool = False  # ask the router to open the port of libp2p

    @property
    def is_loopback(self) -> bool:
        return all(ipaddress.ip_address(host).is_loopback for host in self.hosts)

    @property
    def multiaddrs(self) -> list[str]:
        """Return the multiaddrs at which libp2p listens."""
        return [to_multiaddr(host, self.ports.libp2p) for host in self.hosts]

    @property
    def announced_direct(self) -> list[str]:
        return [format_address(one.host, one.ports.direct) for one in self.announced]

    @property
    def announced_udp(self) -> list[str]:
        return [format_address(one.host, one.ports.udp) for one in self.announced]


class Standing(Enum):
    """The part of the world that can reach a process, by all that is known at its start."""

    HERE = "from this machine"
    NEAR = "from its own network"
    PUBLIC = "from everywhere"
    BEHIND = "from nowhere by itself: it is behind a router"


def standing_of(place: Place, join: Sequence[str], own: Callable[[str], str | None]) -> Standing:
    """Say where a process can be reached from that joins at these multiaddrs.

    `own(host)` is the address of this machine from which it reaches that host. Who joins nobody is
    where the others join; who is told to announce something has seen to it.
    """
    if place.is_loopback:
        return Standing.HERE
    if place.announced or not join:
        return Standing.PUBLIC
    ours = [own(host) for host in map(host_of, join) if host is not None and is_global(host)]
    known = [host for host in ours if host is not None]
    if not known:
        return Standing.NEAR
    return Standing.PUBLIC if all(map(is_global, known)) else Standing.BEHIND


def own_address(host: str) -> str | None:
    """Return this machine's address on the way to an IP address. Nothing is sent for it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
        except OSError:
            return None  # there is no way there
        return str(probe.getsockname()[0])


def check_free(place: Place) -> None:
    """Check that nobody listens at libp2p's port: its daemon would share it. Raises UsageError."""
    if (host := _not_free(place)) is not None:
        where = format_address(host, place.ports.libp2p)
        raise UsageError(f"cannot listen at {where} (TCP): choose another --port, or --listen")


def is_free_for_libp2p(place: Place) -> bool:
    """Return whether nobody listens at libp2p's port."""
    return _not_free(place) is None


def _not_free(place: Place) -> str | None:
    """Return the first host where somebody listens at libp2p's port."""
    families = {host: socket.AF_INET6 if ":" in host else socket.AF_INET for host in place.hosts}
    port = place.ports.libp2p
    taken = (h for h, f in families.items() if not _can_bind(f, socket.SOCK_STREAM, h, port))
    return next(taken, None) if port else None


def has_address(host: str) -> bool:
    """Return whether an IP address is one of this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return _can_bind(family, socket.SOCK_DGRAM, host, 0)


def describe(place: Place, standing: Standing, hosts: Sequence[str]) -> str:
    """Say for a user where a process of his can be reached. `hosts` are its addresses."""
    ports = str(place.ports) if place.ports.are_chosen else "any ports"
    if standing is Standing.HERE:
        return "listening on this machine only; others cannot reach it"
    if place.announced:
        there = " and ".join(f"{one.host} ({one.ports})" for one in place.announced)
        return f"listening at {ports}; others are told to come to {there}"
    where = ", ".join(hosts) or "no address"
    if standing is Standing.BEHIND:
        return (
            f"listening at {ports} of {where}, behind a router: others come through relays; "
            "straight, if you forward ports there and pass --port and --announce"
        )
    return f"listening at {ports} of {where}; a firewall has to let these in"


# ------------------------------------------------------------------ the command line's words


def parse_ports(text: str | None) -> Ports:
    """Read `7000`, which is 7000 and twice 7001, or `7000,7001,7001`. Raises UsageError."""
    if text is None:
        return Ports()
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    match numbers:
        case [libp2p]:
            return _checked(Ports(libp2p, libp2p + 1, libp2p + 1), f"--port {text}")
        case [libp2p, direct, udp] if libp2p != direct:
            return _checked(Ports(libp2p, direct, udp), f"--port {text}")
    raise UsageError(
        f"--port {text}: write one port, or three (libp2p's, that of direct links, UDP): "
        "7000 is 7000,7001,7001"
    )


def parse_place(
    listen: Sequence[str], port: str | None, announce: Sequence[str], *, upnp: bool = False
) -> Place:
    """Read what a command was given. Raises UsageError.

    `listen` has IP addresses, or multiaddrs with libp2p's port in them.
    """
    ports, hosts = parse_ports(port), []
    for text in listen:
        host, libp2p = _parse_listen(text)
        if libp2p not in (0, ports.libp2p) and ports.libp2p:
            raise UsageError(f"--listen {text}: libp2p's port is {ports.libp2p} already")
        if libp2p:
            ports = Ports(libp2p, ports.direct, ports.udp)
        hosts.append(host)
    if len(announce) > MAX_ANNOUNCED:
        raise UsageError(f"--announce: at most {MAX_ANNOUNCED} addresses can be announced")
    announced = tuple(_parse_announced(text, ports) for text in announce)
    return Place(tuple(dict.fromkeys(hosts)), ports, announced, upnp)


def everywhere() -> list[str]:
    """Return what to listen at to be reached by all addresses that this machine has."""
    families = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}
    return [h for h in ANYWHERE if _can_bind(families[h], socket.SOCK_STREAM, h, 0)]


def pick_port() -> int:
    """Return a port that is free together with the next one. Raises UsageError.

    The first one that is, so that the same machine mostly picks the same again.
    """
    for port in range(PICKS[0], PICKS[0] + 2 * TRIES, 2):
        if all(_is_free(kind, n) for kind, n in _needed(port)):
            return port
    raise UsageError("no port is free here; choose one with --port")


def _needed(port: int) -> Iterator[tuple[socket.SocketKind, int]]:
    yield socket.SOCK_STREAM, port
    yield socket.SOCK_STREAM, port + 1
    yield socket.SOCK_DGRAM, port + 1


def _is_free(kind: socket.SocketKind, port: int) -> bool:
    hosts = everywhere()
    families = [socket.AF_INET6 if ":" in host else socket.AF_INET for host in hosts]
    return all(
        _can_bind(family, kind, host, port) for family, host in zip(families, hosts, strict=True)
    )


def _can_bind(family: socket.AddressFamily, kind: socket.SocketKind, host: str, port: int) -> bool:
    try:
        with socket.socket(family, kind) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:  # connections of the past do not count
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            if kind == socket.SOCK_STREAM:
                probe.listen(1)  # who does not listen yet has bound it as well
    except OSError:
        return False
    return True


def to_multiaddr(host: str, port: int) -> str:
    return f"/ip{6 if ':' in host else 4}/{host}/tcp/{port}"


def _parse_listen(text: str) -> tuple[str, int]:
    """Return the IP address, and libp2p's port or 0."""
    match text.split("/"):
        case ["", "ip4" | "ip6", host, "tcp", port] if port.isdigit() and int(port) <= MAX_PORT:
            libp2p = int(port)
        case [host]:
            libp2p = 0
        case _:
            host, libp2p = "", 0
    try:
        return str(ipaddress.ip_address(host)), libp2p
    except ValueError:
        raise UsageError(
            f"--listen {text}: write an IP address, like 0.0.0.0, or a multiaddr, like "
            "/ip4/0.0.0.0/tcp/7000"
        ) from None


def _parse_announced(text: str, ports: Ports) -> Announced:
    if not ports.are_chosen:
        raise UsageError(
            f"--announce {text}: needs --port, or nobody knows which ports are announced"
        )
    try:
        host, libp2p = _parse_listen(text)
    except UsageError:
        raise UsageError(
            f"--announce {text}: write the IP address that others see, like 203.0.113.5, or with "
            "the port there, like /ip4/203.0.113.5/tcp/17000"
        ) from None
    if ipaddress.ip_address(host).is_unspecified:
        raise UsageError(f"--announce {text}: nobody can be reached at that address")
    return Announced(host, ports.shifted(libp2p - ports.libp2p) if libp2p else ports)


def _checked(ports: Ports, what: str) -> Ports:
    numbers: Iterable[int] = (ports.libp2p, ports.direct, ports.udp)
    if not all(0 < number <= MAX_PORT for number in numbers):
        raise UsageError(f"{what}: a port is a number from 1 to {MAX_PORT}")
    return ports
