"""Addresses of libp2p, and those that lead through a relay."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from hivemind.p2p.p2p_daemon_bindings.datastructures import PeerID
from hivemind.utils.multiaddr import Multiaddr

from swarmrt.ids import PeerId
from swarmrt.runtime.reach.addresses import host_of, is_global

CIRCUIT = "/p2p-circuit"  # in the address of who is reached through a relay
PEER_CODE, CIRCUIT_CODE = b"\xa5\x03", b"\xa2\x02"  # in an address in bytes


def peer_of_address(multiaddr: str) -> PeerId | None:
    """Return the peer id at the end of a multiaddr, if there is one."""
    match multiaddr.rsplit("/", 2):
        case [_, "p2p", peer]:
            return PeerId(peer)
    return None


def by_peer(multiaddrs: Sequence[str]) -> dict[PeerId, list[str]]:
    """Return multiaddrs by the peer ids at their ends; those without one are left out."""
    found: dict[PeerId, list[str]] = {}
    for multiaddr in multiaddrs:
        peer = peer_of_address(multiaddr)
        if peer is not None:
            found.setdefault(peer, []).append(multiaddr)
    return found


def worth_telling(visible: Sequence[Multiaddr]) -> list[str]:
    """Return those of the daemon's addresses that others can dial, the internet's first."""
    texts = [text for text in map(str, visible) if "/tcp/" in text and CIRCUIT not in text]
    hosts = {text: ip_address(host_of(text) or "0.0.0.0") for text in texts}
    elsewhere = [t for t in texts if not (hosts[t].is_loopback or hosts[t].is_link_local)]
    return sorted(elsewhere or texts, key=lambda text: not hosts[text].is_global)


def is_direct_and_global(multiaddr: str) -> bool:
    """Return whether a multiaddr leads to a public address, and not through a relay."""
    host = host_of(multiaddr)
    return CIRCUIT not in multiaddr and host is not None and is_global(host)


def encode_multiaddr(multiaddr: str) -> bytes:
    """Return a multiaddr as the daemon takes it. Raises ValueError.

    hivemind writes the id of a relay, which is in the middle of it, in a way that it does not take.
    """
    base, circuit, rest = multiaddr.partition(CIRCUIT)
    if not circuit:
        return bytes(Multiaddr(base).to_bytes())
    where, _, relay = base.partition("/p2p/")
    if rest or not relay:
        raise ValueError(f"{multiaddr!r:.200} is not the address of somebody at a relay")
    peer = PeerID.from_base58(relay).to_bytes()
    encoded: bytes = Multiaddr(where).to_bytes() + PEER_CODE + bytes([len(peer)]) + peer
    return encoded + CIRCUIT_CODE
