"""Home networks in network namespaces: one internet, hosts on it, and routers that translate.

Everything is inside namespaces made here, so that no packet reaches a real network; addresses look
public because libp2p and swarmrt treat private ones in another way. It needs root and nftables.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

NEEDED = ("ip", "nft", "nsenter")
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
        """What runs these words on this machine."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", *map(str, words)]

    def run(self, *words: object, text: str | None = None) -> str:
        """Run to the end. Raises CalledProcessError."""
        done = subprocess.run(
            self.command(*words), input=text, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
        return done.stdout


def why_not_here() -> str:
    """Why namespaces cannot be made on this machine; empty where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed: apt-get install nftables iproute2 util-linux"
    try:
        with Internet() as internet:
            internet.home("try", 250)
    except RuntimeError as error:
        return f"this machine makes no network namespaces with address translation: {error}"
    return ""


class Internet:
    """A bridge between hosts. As a context manager it takes down all that it has made."""

    def __init__(self) -> None:
        self._prefix = f"swarmrt-{os.getpid()}-"
        self._namespaces: list[str] = []
        self._links = 0
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
        """Take all namespaces down; links and rules go with them."""
        for name in reversed(self._namespaces):
            _ip("netns", "delete", name)
        self._namespaces.clear()

    def host(self, name: str, number: int, *, ipv6_only: bool = False) -> Host:
        """A machine with an address of its own on the internet."""
        address = f"2a0f:1111::{number}" if ipv6_only else f"11.0.0.{number}"
        host = self._namespace(name, address)
        self._connect(host, number, ipv4=not ipv6_only)
        return host

    def home(self, name: str, number: int) -> Host:
        """A machine behind a router that lets nothing in and has the only address outside."""
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
        """Have a home's router forward ports, like 7000-7001, to a machine; its address outside."""
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

    def close_ports(self, host: Host, tcp: Sequence[int], udp: Sequence[int]) -> None:
        """A firewall on the machine, with these ports open."""
        open_tcp = f"tcp dport {{ {', '.join(map(str, tcp))} }} accept" if tcp else ""
        open_udp = f"udp dport {{ {', '.join(map(str, udp))} }} accept" if udp else ""
        host.run("nft", "-f", "-", text=FIREWALL % f"{open_tcp}\n    {open_udp}")

    def _namespace(self, name: str, address: str) -> Host:
        full = self._prefix + name
        _ip("netns", "add", full)
        self._namespaces.append(full)
        host = Host(full, address)
        host.run("ip", "link", "set", "lo", "up")
        return host

    def _connect(self, host: Host, number: int, *, ipv4: bool = True, ipv6: bool = True) -> None:
        """A cable from the machine to the internet."""
        end = f"end{self._links}"
        self._links += 1
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


def _ip(*words: str) -> None:
    """Raises RuntimeError."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
