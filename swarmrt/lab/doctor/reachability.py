"""The ways in which others have tried to reach a process on this machine, and what mends them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from swarmrt.errors import RunError
from swarmrt.ids import PeerId
from swarmrt.lab.doctor.findings import Finding
from swarmrt.runtime.directory.network import Network
from swarmrt.runtime.links.probing import Prober
from swarmrt.runtime.reach.dialing_back import datagram
from swarmrt.runtime.reach.listening import udp_socket
from swarmrt.runtime.reach.place import Place, Standing

DATAGRAM_S = 1.0  # that one may take, after the answer has come


class Datagrams(asyncio.DatagramProtocol):
    """The one datagram that is waited for."""

    def __init__(self, awaited: bytes, came: asyncio.Event) -> None:
        self._awaited, self._came = awaited, came

    def datagram_received(self, data: bytes, address: object) -> None:
        if data == self._awaited:
            self._came.set()


async def examine_reachability(
    network: Network,
    probers: Sequence[Prober],
    trainer: PeerId,
    addresses: Mapping[str, Sequence[str]],
) -> AsyncIterator[Finding]:
    """Have the trainer dial this process, at the ports of its place, which are chosen."""
    if network.daemon.standing is Standing.BEHIND:
        relayed = len(network.daemon.relayed)
        yield Finding("relays", relayed > 0, f"{relayed} let others through to this machine")
    place = network.place
    there = place.announced[0].ports if place.announced else place.ports
    number, came = secrets.randbits(31), asyncio.Event()
    refusal = "no process of the run could be asked"
    async with _listening(place, datagram(number), came):
        for prober in probers:
            its = addresses[prober.carrier.name]
            try:
                dialed = await prober.dial_back(trainer, its, number, there)
            except RunError as error:
                refusal = str(error)
                continue
            if dialed.host:
                break
            refusal = "the link to it comes through a relay"
        else:
            yield Finding("dialed back", False, f"the trainer was to dial us, but: {refusal}")
            return
        with contextlib.suppress(TimeoutError):  # told below
            async with asyncio.timeout(DATAGRAM_S):
                await came.wait()
    is_direct = any(prober.carrier.name == "direct" for prober in probers)
    reached = {
        f"TCP {there.libp2p}, libp2p": dialed.libp2p,
        **({f"TCP {there.direct}, direct": dialed.direct} if is_direct else {}),
        f"UDP {there.udp}, beacons": came.is_set(),
    }
    for what, works in reached.items():
        says = "the trainer gets through to" if works else "the trainer does not get through to"
        yield Finding(f"dialed back, {what}", works, f"{says} {dialed.host}")
    if not all(reached.values()):
        advice = advise(place, network.daemon.hosts(), dialed.host)
        yield Finding("dialed back, what helps", False, advice)


def advise(place: Place, own: Sequence[str], seen: str) -> str:
    """Say what lets others through to this machine, which they see at the address `seen`."""
    ports = place.ports
    if seen in own:
        tcp, udp = f"{ports.libp2p},{ports.direct}/tcp", f"{ports.udp}/udp"
        return (
            f"open {ports} in the firewall, here `sudo ufw allow {tcp}; sudo ufw allow {udp}`, and "
            f"pass {ports.option}"
        )
    inside = next((host for host in own if (":" in host) == (":" in seen)), "this machine")
    return (
        f"others see {seen}, a router: have it forward {ports} to {inside}, and pass "
        f"{ports.option} --announce {seen}; without that, links between homes go through relays"
    )


@asynccontextmanager
async def _listening(place: Place, awaited: bytes, came: asyncio.Event) -> AsyncIterator[None]:
    """Take a datagram at all addresses. Raises RunError."""
    sockets, transports = [], []
    try:
        for host in place.hosts:
            sockets.append(udp_socket(host, place.ports.udp))
        for bound in sockets:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: Datagrams(awaited, came), sock=bound
            )
            transports.append(transport)
        yield
    except OSError as error:
        raise RunError(f"cannot listen at UDP {place.ports.udp}: {error.strerror}") from None
    finally:
        for transport in transports:
            transport.close()
        for bound in sockets:
            bound.close()
