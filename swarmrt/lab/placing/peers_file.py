"""The file that says which peers there are, and what links they have to each other."""

from __future__ import annotations

import itertools
import math
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from swarmrt.config import Section
from swarmrt.errors import UsageError
from swarmrt.scheduler.placement.facts import Network

BYTES_PER_S = 1e6 / 8  # of a megabit a second
MOST_PEERS = 4096


class Peers(Section):
    """A number of peers that are alike."""

    name: str = Field(min_length=1)
    count: int = Field(default=1, ge=1, le=MOST_PEERS)
    speed: float = Field(default=1.0, gt=0, allow_inf_nan=False)  # beside the machine that plans
    memory_gb: float = Field(default=float("inf"), gt=0)  # for device and host together
    region: str = "here"
    up_mbit: float = Field(default=float("inf"), gt=0)
    down_mbit: float = Field(default=float("inf"), gt=0)


class Between(Section):
    """A link between two regions, or between peers within one."""

    between: tuple[str, str]
    delay_ms: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # one way
    mbit: float = Field(default=float("inf"), gt=0)


class PeersFile(Section):
    peers: tuple[Peers, ...] = Field(min_length=1)
    links: tuple[Between, ...] = ()


def read_peers(path: Path) -> Network:
    """Return the network that a file tells of. Raises UsageError, with the line's key, if it does
    not."""
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    try:
        told = PeersFile.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        unknown = first["type"] == "extra_forbidden"
        problem = "there is no such key" if unknown else first["msg"]
        raise UsageError(f"{path}: {where}: {problem}") from None
    return _network(told, path)


def _network(told: PeersFile, path: Path) -> Network:
    every = [
        (f"{peers.name}-{number}" if peers.count > 1 else peers.name, peers)
        for peers in told.peers
        for number in range(peers.count)
    ]
    if len(every) > MOST_PEERS:
        raise UsageError(f"{path}: {len(every)} peers are more than the {MOST_PEERS} of a plan")
    names = [name for name, _ in every]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{path}: two peers are called {twice[0]}")
    links = _links(told, path)
    number = len(every)
    delay_s = [[0.0] * number for _ in every]
    bytes_per_s = [[math.inf] * number for _ in every]
    for p, q in itertools.permutations(range(number), 2):
        one, other = every[p][1], every[q][1]
        link = links[frozenset((one.region, other.region))]
        delay_s[p][q] = link.delay_ms / 1e3
        bytes_per_s[p][q] = BYTES_PER_S * min(one.up_mbit, other.down_mbit, link.mbit)
    return Network(
        tuple(names),
        tuple(peers.speed for _, peers in every),
        tuple(peers.memory_gb * 1e9 for _, peers in every),
        tuple(map(tuple, delay_s)),
        tuple(map(tuple, bytes_per_s)),
    )


def _links(told: PeersFile, path: Path) -> dict[frozenset[str], Between]:
    """Return the link of each pair of regions that there is. Within a region none need be told."""
    regions = {peers.region for peers in told.peers}
    found = {frozenset((region,)): Between(between=(region, region)) for region in regions}
    for link in told.links:
        if unknown := [region for region in link.between if region not in regions]:
            raise UsageError(f"{path}: no peer is in {unknown[0]}, to which a link is told")
        found[frozenset(link.between)] = link
    for one, other in itertools.combinations(sorted(regions), 2):
        if frozenset((one, other)) not in found:
            raise UsageError(
                f'{path}: say what link there is with [[links]] between = ["{one}", "{other}"]'
            )
    return found
