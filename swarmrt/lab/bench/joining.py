"""The time that a newcomer takes from its process's start to its first microbatch, and what the
others notice of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from swarmrt.lab.swarm.swarm import LocalSwarm
from swarmrt.log_files import json_lines
from swarmrt.messages import Forward
from swarmrt.observe.audit import audit
from swarmrt.observe.log import received, what_happened
from swarmrt.scheduler.events import Event, Started, StateLoaded

FIRST_S = 300.0  # for the newcomer's first microbatch


@dataclass(frozen=True)
class Joined:
    ready_s: float  # until the core was up: imports, the directory, building the stage
    state_s: float  # until it had the state
    first_microbatch_s: float  # until it took its first microbatch
    longest_gap_s: float  # between two commits meanwhile
    median_gap_s: float


def join(swarm: LocalSwarm, stage: int) -> Joined:
    """Start one more replica of a running swarm, and wait for its first microbatch."""
    swarm.wait(swarm.version + 5)
    started = time.monotonic()
    newcomer = swarm.spawn(stage)
    log = newcomer.folder / "events.jsonl"
    swarm.wait_until(lambda: _first_forward(log) is not None, "its first microbatch", FIRST_S)
    swarm.wait(swarm.version + 5)
    up_at, state_at = _first(log, Started), _first(log, StateLoaded)
    first_at = _first_forward(log)
    assert up_at is not None and first_at is not None
    gaps = _gaps(swarm.run_dir)
    return Joined(
        up_at - started,
        (state_at or up_at) - started,
        first_at - started,
        audit(swarm.run_dir).longest_gap_s,
        sorted(gaps)[len(gaps) // 2],
    )


def _first(log: Path, what: type[Event]) -> float | None:
    """Return when an event of this kind first came."""
    return next((r.now for r in what_happened(log) if isinstance(r.event, what)), None)


def _first_forward(log: Path) -> float | None:
    return next((now for now, _, _ in received(log, Forward)), None)


def _gaps(run_dir: Path) -> list[float]:
    lines = json_lines(run_dir / "metrics.jsonl")
    times = [line["time"] for line in lines if "digests" in line]
    return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
