"""The start of a peer: what its user asked for, and the threads beside its event loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from swarmrt.config import RunConfig
from swarmrt.ids import NO_ISLAND
from swarmrt.model.stage import Stage
from swarmrt.runtime.access.kept_runs import KeptRun
from swarmrt.runtime.directory.network import LOOPBACK
from swarmrt.runtime.faults.failpoints import Failpoints
from swarmrt.runtime.faults.faults import LinkFaults
from swarmrt.runtime.process.worker import Worker
from swarmrt.runtime.reach.place import Place
from swarmrt.scheduler.lending import Hours
from swarmrt.trust.joining_line import JoinLine


@dataclass(frozen=True)
class Moves:
    """The word of a process's owner that it serves where it helps most."""

    stages: tuple[int, ...] = ()  # that it may serve; all where it is empty
    is_pinned: bool = False  # it stays where it has begun


@dataclass(frozen=True)
class ServeOptions:
    """The options of `swarmrt serve`."""

    line: JoinLine  # of the run
    stages: tuple[int, ...]  # one seat each; with `moves` those that it may have
    moves: Moves | None = None  # it serves where it helps most
    is_spare: bool = False  # they take work only in the place of replicas that are lost
    island: int = NO_ISLAND  # that they ask for, if they ask for any
    kept: KeptRun | None = None  # where this machine keeps what it knows of the run
    place: Place = LOOPBACK
    identity: Path | None = None
    device: str = "cpu"
    threads: int | None = None
    allow_models: frozenset[str] = frozenset()  # builders that may run here
    allow_policies: frozenset[str] = frozenset()  # of wiring, that may run here
    max_memory_bytes: float | None = None  # of the device; None for a share of what is free
    link_bytes_per_s: float | None = None  # that all links may send together
    down_bytes_per_s: float | None = None  # and that they may read
    hours: Hours | None = None  # in which its owner lends the device; None for all
    wait: bool = False
    state_dir: Path | None = None  # where its state is left, and taken up again
    trainer_gone_s: float = math.inf  # for which it waits for a trainer that is gone
    log_dir: Path | None = None
    failpoints: Failpoints = field(default_factory=Failpoints)
    faults: LinkFaults | None = None
    new_stage: Callable[[RunConfig, int, str], Stage] = Stage


class Threads(NamedTuple):
    """The threads to which a peer's event loop leaves what takes time."""

    torch: Worker
    reduce: Worker
    to_host: Worker  # waits for copies from CUDA
