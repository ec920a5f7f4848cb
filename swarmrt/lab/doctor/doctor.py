"""The examination of what works from here, and why not: this machine, its carriers, and a swarm."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import platform
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import torch

from swarmrt.config import RunConfig
from swarmrt.config_toml import parse_config
from swarmrt.errors import RunError, SwarmError
from swarmrt.ids import PeerId, RunId
from swarmrt.kernels.dispatch import describe
from swarmrt.lab.bench.linking import measure
from swarmrt.lab.doctor.findings import Finding
from swarmrt.lab.doctor.reachability import examine_reachability
from swarmrt.model.sizing import footprint
from swarmrt.runtime.carriers.carriers import DIAL_S, Carrier
from swarmrt.runtime.computing.free_memory import describe as describe_size
from swarmrt.runtime.computing.free_memory import free_bytes
from swarmrt.runtime.directory.network import Network, open_network
from swarmrt.runtime.links.probing import Distance, Prober
from swarmrt.runtime.reach.place import Place
from swarmrt.trust.joining_line import JoinLine
from swarmrt.trust.papers import GuestsPapers
from swarmrt.trust.statements import Published

TRAINING_BYTES = 16  # a parameter with its gradient and AdamW's two moments, in float32
MATMUL_SIZE, MATMULS = 1024, 5
MAX_CLOCK_OFFSET_S = 3.0  # MAX_DHT_TIME_DISCREPANCY_SECONDS of hivemind
LINK_KINDS = {
    "auto": "links go direct where that can be, else by libp2p",
    "direct": "links go direct only",
    "libp2p": "links go by libp2p only",
}


def examine_machine() -> Iterator[Finding]:
    """Find out what this process runs with, and what it could train."""
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("torch", "hivemind"))
    yield Finding("python", True, f"{platform.python_version()}, {versions}")
    has_uvloop = importlib.util.find_spec("uvloop") is not None
    yield Finding("event loop", True, "uvloop" if has_uvloop else "asyncio's (uvloop is faster)")
    for device, says in describe().items():
        if says.startswith("eager torch"):
            says += " (the same bytes, at a twentieth of the throughput)"
        yield Finding(f"codecs on {device}", not says.startswith("not used"), says)
    for device in _devices():
        yield Finding(f"device {device}", True, _describe_device(device))


def _devices() -> list[str]:
    return ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]


def _describe_device(device: str) -> str:
    rate = _matmul_flops(device) / 1e9
    free = free_bytes(device)
    if free is None:
        return f"{rate:.0f} GFLOP/s in float32"
    millions = free / TRAINING_BYTES / 1e6
    return (
        f"{rate:.0f} GFLOP/s in float32, {free / 2**30:.1f} GiB free: a stage of up to "
        f"{millions:,.0f} million parameters, before activations"
    )


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
    join: Sequence[str], place: Place, line: JoinLine | None
) -> AsyncIterator[Finding]:
    """Join the directory; with a run's join line, dial and probe its trainer and its peers."""
    started = time.monotonic()
    try:
        async with _network(join, place, line) as network:
            took = time.monotonic() - started
            yield Finding("directory", True, f"joined in {took:.1f} s")
            if line is not None:
                async for finding in _examine_run(network, line.run):
                    yield finding
    except SwarmError as error:
        yield Finding("directory", False, str(error))


def _network(
    join: Sequence[str], place: Place, line: JoinLine | None
) -> AbstractAsyncContextManager[Network]:
    if line is None:
        return open_network(join, place)
    at = (*join, *line.addresses)
    papers, private = GuestsPapers(line), line.invite is not None
    return open_network(at, place, papers=papers, private=private)


async def _examine_run(network: Network, run: RunId) -> AsyncIterator[Finding]:
    record = await network.directory.find_run(run)
    if record is None:
        yield Finding(f"run {run}", False, "the directory does not know it")
        return
    config = parse_config(record.config, f"run {run}")
    links = LINK_KINDS[config.links.link]
    yield Finding(f"run {run}", True, f"{config.num_stages} stages, epoch {record.epoch}; {links}")
    async with _probers(network, config) as probers:
        async for finding in _examine_processes(network, run, config, record, probers):
            yield finding
        if not network.place.is_loopback:
            known = {"libp2p": record.addresses, "direct": record.direct}
            trainer = PeerId(record.trainer)
            async for finding in examine_reachability(network, probers, trainer, known):
                yield finding


@asynccontextmanager
async def _probers(network: Network, config: RunConfig) -> AsyncIterator[list[Prober]]:
    """Return a prober for each carrier that the run allows, the preferred one first."""
    max_bytes, door = config.links.max_message_bytes, network.door(config)
    async with AsyncExitStack() as started:
        carriers = network.carriers(config.links.link)
        probers = [Prober(c, door, max_bytes, network.reach) for c in carriers]
        for prober in probers:
            await prober.start()
            started.push_async_callback(prober.close)
        yield probers


async def _examine_processes(
    network: Network,
    run: RunId,
    config: RunConfig,
    record: Published,
    probers: Sequence[Prober],
) -> AsyncIterator[Finding]:
    known = {"libp2p": record.addresses, "direct": record.direct}
    async for finding in _examine_process("trainer", PeerId(record.trainer), known, probers):
        yield finding
    for stage in range(config.num_stages):
        peers = await network.directory.peers(run, stage)
        serving = sum(peer.status == "serving" for peer in peers)
        says = f"{serving} of {len(peers)} peers serve it{_describe_stage(config, stage)}"
        yield Finding(f"stage {stage}", serving > 0, says)
        for peer in peers:
            who = f"stage {stage}"
            async for finding in _examine_process(who, peer.peer, peer.known_addresses, probers):
                yield finding


def _describe_stage(config: RunConfig, stage: int) -> str:
    """Tell a stage's size, and where it fits here. A user's own layers are not built for it."""
    if config.model.kind != "decoder" or config.stages.layers is None:
        return ""
    needed = footprint(config, stage)
    needed_bytes = needed.device_bytes
    fitting = [d for d in _devices() if (free := free_bytes(d)) is None or free > needed_bytes]
    where = f"fits on {', '.join(fitting)}" if fitting else "fits on no device here"
    return (
        f"; {needed.parameters / 1e6:,.1f} million parameters, {describe_size(needed_bytes)} to "
        f"train them: {where}"
    )


async def _examine_process(
    who: str,
    peer: PeerId,
    known: Mapping[str, Sequence[str]],
    probers: Sequence[Prober],
) -> AsyncIterator[Finding]:
    """Find out how a process is reached by each carrier, and how far it is."""
    nearest: Distance | None = None
    for prober in probers:
        name = prober.carrier.name
        what = f"{who} {peer[-6:]}, {name}"
        addresses = prober.within_reach(known[name])
        try:
            await _dial(prober.carrier, peer, addresses)
            distance = await prober.measure(peer, addresses)
        except (OSError, RunError) as error:
            yield Finding(what, False, str(error) or type(error).__name__)
            continue
        yield Finding(what, True, _describe_distance(distance, is_chosen=nearest is None))
        nearest = nearest or distance
    if nearest is not None:
        yield _examine_clock(f"{who} {peer[-6:]}, clock", nearest)


async def _dial(carrier: Carrier, peer: PeerId, addresses: Sequence[str]) -> None:
    """Connect, and say nothing. Raises RunError or OSError, which says why not."""
    if not addresses:
        raise RunError("it announces no address for it that is dialed from here")
    try:
        async with asyncio.timeout(DIAL_S):
            connection = await carrier.dial(peer, addresses)
    except TimeoutError:
        raise RunError(f"no answer in {DIAL_S:.0f} s from {', '.join(addresses)}") from None
    connection.abort()


def _describe_distance(distance: Distance, *, is_chosen: bool) -> str:
    there, back = distance.there_bytes_per_s / 1e6, distance.back_bytes_per_s / 1e6
    return (
        f"round trip {distance.round_trip_s * 1e3:.2f} ms, {there:.3g} MB/s there, "
        f"{back:.3g} MB/s back{'; links would use it' if is_chosen else ''}"
    )


def _examine_clock(what: str, distance: Distance) -> Finding:
    """Find out how far a clock is off, by the link that would be used."""
    offset = distance.clock_offset_s
    side = "ahead of" if offset > 0 else "behind"
    says = (
        f"{abs(offset) * 1e3:.2f} ms {side} ours, give or take {distance.round_trip_s * 500:.2f} ms"
    )
    if abs(offset) <= MAX_CLOCK_OFFSET_S:
        return Finding(what, True, says)
    return Finding(what, False, f"{says}: the directory bears {MAX_CLOCK_OFFSET_S:.0f} s; use NTP")
