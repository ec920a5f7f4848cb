"""The sockets of direct links and of beacons at ports that were asked for.

They are bound before anything else is started, and held from then on. So of two processes that want
the same ports, one ends at once with the reason, however close together they were started.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from swarmrt.errors import UsageError
from swarmrt.runtime.reach.addresses import format_address
from swarmrt.runtime.reach.place import Place

BACKLOG = 128


@dataclass
class Listening:
    """Bound sockets; `close` at the end. Where no ports were asked for there are none."""

    direct: list[socket.socket] = field(default_factory=list)
    udp: list[socket.socket] = field(default_factory=list)

    @classmethod
    def at(cls, place: Place) -> Listening:
        """Bind what a place asks for. Raises UsageError when somebody else has it."""
        found = cls()
        try:
            for host in place.hosts if place.ports.direct else ():
                found.direct.append(_bound(host, place.ports.direct, "TCP"))
            for host in one_of_each_kind(place.hosts) if place.ports.udp else ():
                found.udp.append(_bound(host, place.ports.udp, "UDP"))
        except UsageError:
            found.close()
            raise
        return found

    def close(self) -> None:
        """Close those that nobody has closed yet."""
        for one in (*self.direct, *self.udp):
            one.close()


def one_of_each_kind(hosts: Sequence[str]) -> list[str]:
    """Return the first host of IPv4 and that of IPv6: more are not needed for datagrams."""
    firsts: dict[bool, str] = {}
    for host in hosts:
        firsts.setdefault(":" in host, host)
    return list(firsts.values())


def tcp_listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens; the system chooses a port that is 0. Raises OSError."""
    listener = _new(host, socket.SOCK_STREAM)
    try:
        if port:  # connections of who listened there before do not stand in the way
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def udp_socket(host: str, port: int) -> socket.socket:
    """Return a socket for datagrams of one kind of address. Raises OSError."""
    bound = _new(host, socket.SOCK_DGRAM)
    try:
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound


def _new(host: str, kind: socket.SocketKind) -> socket.socket:
    """Return a socket of one kind of address, and no other, that never blocks. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, kind)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def _bound(host: str, port: int, kind: str) -> socket.socket:
    try:
        return tcp_listener(host, port) if kind == "TCP" else udp_socket(host, port)
    except OSError as error:
        where = f"{format_address(host, port)} ({kind})"
        why = f"cannot listen at {where}: {error.strerror}"
        raise UsageError(f"{why}; choose another --port, or --listen") from None
