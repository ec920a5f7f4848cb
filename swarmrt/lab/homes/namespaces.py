"""Home networks in network namespaces: one internet, hosts on it, and routers that translate.

Everything is inside namespaces made here, so that no packet reaches a real network; addresses look
public because libp2p and swarmrt treat private ones in another way. It needs root; routers and
firewalls need nftables.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from swarmrt.errors import RunError

PACKAGES = {"ip": "iproute2", "tc": "iproute2", "nsenter": "util-linux", "nft": "nftables"}
ENDINGS = {signal.SIGINT, signal.SIGTERM}  # wait until all is taken down
INSIDE = "192.168.1"  # of every home: as with real routers, homes have the same addresses

ROUTER = """
table ip nat {
  chain out { type nat hook postrouting priority srcnat; oifname "wan" masquerade; }
}
table inet filter {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "lan" accept
  }
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname { "lan", "lo" } accept
    meta l4proto { icmp, ipv6-icmp } accept
  }
}
"""

FORWARDING = """
table ip nat {
  chain in { type nat hook prerouting priority dstnat; iifname "wan" %s }
}
table inet filter {
  chain forward { ct status dnat accept
  }
}
"""

COUNTER = """
table inet counting {
  counter straight { }
  chain forward { type filter hook forward priority -10; ip saddr %s counter name straight; }
}
"""

FIREWALL = """
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname "lo" accept
    meta l4proto { icmp, ipv6-icmp } accept
    %s
  }
}
"""


@dataclass(frozen=True)
class Host:
    """A machine: its namespace, and its address there."""

    namespace: str
    address: str

    def command(self, *words: object) -> list[str]:
        """Return what runs these words on this machine."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *map(str, words)]

    def run(self, *words: object, text: str | None = None) -> str:
        """Run to the end, and return what was printed. Raises RunError."""
        return _run(self.command(*words), text)


def why_not_here(
    needed: Sequence[str] = ("ip", "nft", "nsenter"),
    make: Callable[[Internet], object] = lambda internet: internet.home("try", 250),
) -> str:
    """Return why this machine does not let us make namespaces; nothing where it does.

    That takes the programs that are needed, and what is made to try it out.
    """
    if os.geteuid() != 0:
        return "network namespaces need root: try it with sudo, or as root of a container"
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES[name] for name in missing}))
        return f"{', '.join(missing)} not installed: apt-get install {packages}"
    try:
        with Internet() as internet:
            make(internet)
    except RunError as error:
        return f"this machine makes no network namespaces, or not all that is needed there: {error}"
    return ""


class Internet:
    """A bridge between hosts. As a context manager it takes down all that it has made."""

    def __init__(self) -> None:
        self._prefix = f"swarmrt-{os.getpid()}-"
        self._namespaces: list[str] = []
        self._ends: dict[Host, str] = {}  # of cables, in the middle
        self._middle: Host
        self._routers: dict[Host, Host] = {}  # by who is behind them

    def __enter__(self) -> Internet:
        try:
            self._middle = self._namespace("middle", "")
            self._middle.run("ip", "link", "add", "bridge", "type", "bridge")
            self._middle.run("ip", "link", "set", "bridge", "up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what still runs in the namespaces, and take all of them down; links and rules go
        with them. A signal that asks us to leave waits until that is done."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
        try:
            there = _run(["ip", "netns", "list"]).split()
            for name in reversed([name for name in self._namespaces if name in there]):
                for pid in _run(["ip", "netns", "pids", name]).split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                _run(["ip", "netns", "delete", name])
            self._namespaces.clear()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def host(self, name: str, number: int, *, ipv6_only: bool = False) -> Host:
        """Add a machine with an address of its own on the internet."""
        address = f"2a0f:1111::{number}" if ipv6_only else f"11.0.0.{number}"
        host = self._namespace(name, address)
        self._connect(host, number, ipv4=not ipv6_only)
        return host

    def home(self, name: str, number: int) -> Host:
        """Add a machine behind a router that lets nothing in and has the only address outside."""
        router = self._namespace(f"{name}-router", f"11.0.0.{number}")
        self._connect(router, number, ipv6=False)
        host = self._namespace(name, f"{INSIDE}.2")
        host.run(
            "ip", "link", "add", "lan", "type", "veth", "peer", "lan", "netns", router.namespace
        )
        for machine, last in ((router, 1), (host, 2)):
            machine.run("ip", "address", "add", f"{INSIDE}.{last}/24", "dev", "lan")
            machine.run("ip", "link", "set", "lan", "up")
        host.run("ip", "route", "add", "default", "via", f"{INSIDE}.1")
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        router.run("nft", "-f", "-", text=ROUTER)
        self._routers[host] = router
        return host

    def forward(self, host: Host, ports: str) -> str:
        """Have a home's router forward ports, like 7000-7001, to a machine; return its address
        outside."""
        router = self._routers[host]
        to = f"meta l4proto {{ tcp, udp }} th dport {ports} dnat to {host.address};"
        router.run("nft", "-f", "-", text=FORWARDING % to)
        return router.address

    def count(self, host: Host, source: str) -> None:
        """Have a home's router count what comes from an address, from now on."""
        self._routers[host].run("nft", "-f", "-", text=COUNTER % source)

    def counted_bytes(self, host: Host) -> int:
        said = self._routers[host].run("nft", "-j", "list", "counters")
        counters = [one["counter"] for one in json.loads(said)["nftables"] if "counter" in one]
        return int(counters[0]["bytes"])

    def shape(self, host: Host, bits_per_s: str) -> None:
        """Limit what leaves a machine, on its way into the network."""
        device = "wan" if "wan" in host.run("ip", "-br", "link") else "lan"
        shaper = f"root tbf rate {bits_per_s} burst 64kb latency 100ms"
        host.run(*f"tc qdisc add dev {device} {shaper}".split())

    def narrow(self, host: Host, bits_per_s: str) -> None:
        """Limit what goes to a host and what comes from it, with room for 0.4 s of that to wait."""
        shaper = f"root tbf rate {bits_per_s} burst 64kb latency 400ms"
        host.run(*f"tc qdisc add dev wan {shaper}".split())
        self._middle.run(*f"tc qdisc add dev {self._ends[host]} {shaper}".split())

    def close_ports(self, host: Host, tcp: Sequence[int], udp: Sequence[int]) -> None:
        """Put a firewall on the machine, with these ports open."""
        open_tcp = f"tcp dport {{ {', '.join(map(str, tcp))} }} accept" if tcp else ""
        open_udp = f"udp dport {{ {', '.join(map(str, udp))} }} accept" if udp else ""
        host.run("nft", "-f", "-", text=FIREWALL % f"{open_tcp}\n    {open_udp}")

    def _namespace(self, name: str, address: str) -> Host:
        full = self._prefix + name
        self._namespaces.append(full)
        _run(["ip", "netns", "add", full])
        host = Host(full, address)
        host.run("ip", "link", "set", "lo", "up")
        return host

    def _connect(self, host: Host, number: int, *, ipv4: bool = True, ipv6: bool = True) -> None:
        """Put a cable from the machine to the internet."""
        self._ends[host] = end = f"end{len(self._ends)}"
        host.run(
            "ip", "link", "add", "wan", "type", "veth", "peer", end, "netns", self._middle.namespace
        )
        self._middle.run("ip", "link", "set", end, "master", "bridge", "up")
        if not ipv6:
            host.run("sysctl", "-qw", "net.ipv6.conf.wan.disable_ipv6=1")
        if ipv4:
            host.run("ip", "address", "add", f"11.0.0.{number}/24", "dev", "wan")
        host.run("ip", "link", "set", "wan", "up")
        if ipv6:
            host.run("ip", "address", "add", f"2a0f:1111::{number}/64", "dev", "wan", "nodad")


def _run(command: Sequence[str], text: str | None = None) -> str:
    """Run to the end, out of reach of a terminal's Ctrl-C. Raises RunError."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, start_new_session=True
    )
    if done.returncode:
        raise RunError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
