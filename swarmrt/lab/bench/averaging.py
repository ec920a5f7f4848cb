"""Ways of making versions, beside each other where links are narrow: 3 stages x 2 replicas of
emulated devices, 100 ms and 50 Mb/s a process, 4 million parameters a stage.

A step of sync computes for 1.6 s. What averages has longer ones, since its rounds do not wait and
are not waited for: a step is what lies between two of them. Beside the throughput, over what the
devices could do without communication, are told how long a peer stood still around a round at the
most, and what share of the backwards was late: after a local step that came after their forward.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from swarmrt.lab.bench.emulation import Speed
from swarmrt.lab.bench.pipeline import WARM_UP_STEPS, Setting, measure
from swarmrt.log_files import json_lines
from swarmrt.messages import Prepare
from swarmrt.observe.log import what_happened
from swarmrt.scheduler.events import (
    BackwardDone,
    ForwardDone,
    Received,
    Stepped,
    WeightGradientsDone,
)
from swarmrt.scheduler.recording import Record

_SYNC = Setting(
    "sync",
    ((Speed(0.1 / 3, 0.2 / 3),) * 2,) * 3,
    link_delay_s=0.1,
    microbatches=32,
    steps=5,
    staleness=0,
    link_rate="50mbit",
    idle_parameters=4_000_000,
)


def _averaging(strategy: str) -> Setting:
    overrides = {"averaging.strategy": strategy}
    return replace(_SYNC, name=strategy, microbatches=640, steps=3, overrides=overrides)


STRATEGIES = {
    "sync": _SYNC,
    "staleness": replace(_SYNC, name="staleness", staleness=1, steps=7),
    "async": _averaging("async"),
    "diloco": _averaging("diloco"),
    "demo": replace(
        _SYNC,
        name="demo",
        steps=7,
        overrides={
            "averaging.strategy": "demo",
            "optimizer.kind": "sgd",
            "optimizer.clip_norm": 0.0,
        },
    ),
}


def measure_strategy(setting: Setting, folder: Path) -> dict[str, object]:
    """Run it, and say what was reached. Raises RunError."""
    result = measure(setting, folder)
    run_dir = folder / setting.name
    last = WARM_UP_STEPS + setting.steps
    logs = run_dir.glob("peers/*/events.jsonl")
    pauses = [longest_pause_s(what_happened(log), WARM_UP_STEPS, last) for log in logs]
    return {
        **result,
        "link_rate": setting.link_rate,
        "longest_pause_s": max(pauses, default=0.0),
        "late_fraction": late_fraction(run_dir / "metrics.jsonl"),
    }


def longest_pause_s(records: Iterable[Record], first: int, last: int) -> float:
    """Return how long a peer computed nothing while a round was under way or had just ended, at
    most, after version `first` and before version `last`."""
    longest_s, version, ended_at = 0.0, 0, None
    is_in_round = beside_round = False
    for record in records:
        match record.event:
            case Received(_, Prepare()):
                is_in_round = beside_round = True
            case Stepped():
                is_in_round, version = False, version + 1
            case ForwardDone(seconds=s) | BackwardDone(seconds=s) | WeightGradientsDone(seconds=s):
                if ended_at is not None and beside_round and first <= version < last:
                    longest_s = max(longest_s, record.now - s - ended_at)
                ended_at, beside_round = record.now, is_in_round
    return longest_s


def late_fraction(metrics: Path, after: int = WARM_UP_STEPS) -> float:
    """Return which share of backwards was late since a version; 0 where there are none. Each stage
    has as many in each step."""
    told = (entry for entry in json_lines(metrics) if entry.get("version", 0) > after)
    shares = [work["late"] for entry in told for work in entry.get("local", ())]
    return statistics.mean(shares) if shares else 0.0
