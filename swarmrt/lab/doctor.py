"""What works from here, and why not where it does not: this machine, its carriers, and a swarm."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import platform
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from swarmrt.errors import RunError, SwarmError
from swarmrt.ids import PeerId
from swarmrt.kernels.dispatch import describe
from swarmrt.lab.linking import measure
from swarmrt.runtime.carriers import Carrier, Connection
from swarmrt.runtime.dialing import DIAL_S
from swarmrt.runtime.directory import Record
from swarmrt.runtime.network import Network, open_network

TRAINING_BYTES = 16  # a parameter with its gradient and AdamW's two moments, in float32
MATMUL_SIZE, MATMULS = 1024, 5
TCP_INFO_RTT = struct.Struct("=68xI")  # Linux: struct tcp_info, tcpi_rtt, in microseconds


@dataclass(frozen=True)
class Finding:
    what: str
    works: bool
    says: str  # what was found, or why it does not work


def examine_machine() -> Iterator[Finding]:
    """What this process runs with, and what it could train."""
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("torch", "hivemind"))
    yield Finding("python", True, f"{platform.python_version()}, {versions}")
    has_uvloop = importlib.util.find_spec("uvloop") is not None
    yield Finding("event loop", True, "uvloop" if has_uvloop else "asyncio's (uvloop is faster)")
    for device, says in describe().items():
        yield Finding(f"codecs on {device}", not says.startswith("not used"), says)
    for device in ("cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))):
        yield Finding(f"device {device}", True, _describe_device(device))


def _describe_device(device: str) -> str:
    rate = _matmul_flops(device) / 1e9
    free = _free_bytes(device)
    if free is None:
        return f"{rate:.0f} GFLOP/s in float32"
    millions = free / TRAINING_BYTES / 1e6
    return (
        f"{rate:.0f} GFLOP/s in float32, {free / 2**30:.1f} GiB free: a stage of up to "
        f"{millions:,.0f} million parameters, before activations"
    )


def _free_bytes(device: str) -> int | None:
    if device != "cpu":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def _matmul_flops(device: str) -> float:
    square = torch.ones(MATMUL_SIZE, MATMUL_SIZE, device=device)
    best = float("inf")
    for _ in range(MATMULS):
        started = time.perf_counter()
        float((square @ square)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * MATMUL_SIZE**3 / best


def examine_carriers(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[Finding]:
    """Links of each carrier between two processes on this machine."""
    try:
        found = measure(1, 2, 50, new_loop)
    except (SwarmError, OSError) as error:
        yield Finding("links", False, str(error))
        return
    for carrier, way in (("direct", "direct_tls"), ("libp2p", "libp2p")):
        rate = found[f"{way}_bytes_per_s"] / 1e6
        rtt = found[f"{way}_rtt_s"] * 1e3
        yield Finding(f"{carrier} links", True, f"{rate:.0f} MB/s, round trip {rtt:.2f} ms, here")


async def examine_swarm(
    join: Sequence[str], listen: Sequence[str], run: str | None
) -> AsyncIterator[Finding]:
    """Join the directory; with a run's name, dial its trainer and its peers."""
    started = time.monotonic()
    try:
        async with open_network(join, listen) as network:
            took = time.monotonic() - started
            yield Finding("directory", True, f"joined in {took:.1f} s")
            if run is not None:
                async for finding in _examine_run(network, run):
                    yield finding
    except SwarmError as error:
        yield Finding("directory", False, str(error))


async def _examine_run(network: Network, run: str) -> AsyncIterator[Finding]:
    record = await network.directory.find_run(run)
    if record is None:
        yield Finding(f"run {run}", False, "the directory does not know it")
        return
    stages = len(record.config.get("stages", {}).get("layers") or ())
    yield Finding(f"run {run}", True, f"{stages} stages, epoch {record.epoch}")
    carriers = network.carriers("auto")
    async for finding in _dial("trainer", record.trainer, record, carriers):
        yield finding
    for stage in range(stages):
        peers = await network.directory.peers(run, stage)
        serving = sum(peer.status == "serving" for peer in peers)
        yield Finding(f"stage {stage}", serving > 0, f"{serving} of {len(peers)} peers serve it")
        for peer in peers:
            async for finding in _dial(f"stage {stage}", peer.peer, peer, carriers):
                yield finding


async def _dial(
    who: str, peer: PeerId, record: Record, carriers: Sequence[Carrier]
) -> AsyncIterator[Finding]:
    """Each carrier, one after the other. Nothing is said on the connection."""
    for carrier in carriers:
        what = f"{who} {peer[-6:]}, {carrier.name}"
        started = time.monotonic()
        try:
            async with asyncio.timeout(DIAL_S):
                connection = await carrier.dial(peer, record.known_addresses[carrier.name])
        except TimeoutError:
            yield Finding(what, False, f"no answer in {DIAL_S:.0f} s")
        except (OSError, RunError) as error:
            yield Finding(what, False, str(error) or type(error).__name__)
        else:
            took = time.monotonic() - started
            yield Finding(what, True, f"connected in {took * 1e3:.0f} ms{_round_trip(connection)}")
            connection.abort()


def _round_trip(connection: Connection) -> str:
    """As the system has measured it, where it tells."""
    tcp = connection.socket()
    if tcp is None or not hasattr(socket, "TCP_INFO") or os.uname().sysname != "Linux":
        return ""
    info = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_RTT.size)
    (microseconds,) = TCP_INFO_RTT.unpack(info)
    return f", round trip {microseconds / 1e3:.1f} ms"
