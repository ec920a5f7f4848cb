"""The throughput of a pipeline beside the best that its peers could do, with emulated computing.

The ideal is the maximum flow of microbatches from a source through one replica of each stage to a
sink, where a peer lets through one in `forward_s + backward_s`. What was reached is counted from
commit to commit, over whole steps: filling, reducing, updating and draining count. The steps before
the first of these commits are warm-up: links are dialed, and estimates learned.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import networkx

from swarmrt.lab.bench.emulation import MODEL, Speed
from swarmrt.lab.swarm.swarm import LocalSwarm
from swarmrt.log_files import json_lines

WARM_UP_STEPS = 2
PATIENCE = 4  # times the ideal, before a setting has failed
START_S = 120.0
STAGES = 4

CONFIG = """
[run]
name = "bench-pipeline"
steps = 100000
[model]
width = 8
sequence = 8
vocab = 256
[batch]
microbatch = 1
[optimizer]
warmup_steps = 0
schedule = "constant"
lr = 1e-4
[evaluation]
every_steps = 0
[checkpoint]
every_steps = 0
[links]
record_ttl_s = 60.0
refresh_s = 10.0
"""
TEXT = "All work and no play makes a dull pipeline.\n" * 400


@dataclass(frozen=True)
class Setting:
    """Peers of given speeds, at a given distance from each other."""

    name: str
    speeds: tuple[tuple[Speed, ...], ...]  # by stage, one replica after the other
    link_delay_s: float
    microbatches: int  # of a step
    steps: int  # that are measured
    staleness: int = 1
    link_rate: str | None = None  # of each process, as `swarmrt serve` takes it
    idle_parameters: int = 0  # of each layer: they cost no computing
    overrides: Mapping[str, object] = field(default_factory=dict)

    @property
    def ideal_per_s(self) -> float:
        return max_flow(self.speeds)


def _stages(*replicas_s: float) -> tuple[tuple[Speed, ...], ...]:
    """Return equal stages: seconds of a microbatch at each replica, a third of them forward."""
    return (tuple(Speed(s / 3, 2 * s / 3) for s in replicas_s),) * STAGES


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("equal", _stages(0.1, 0.1), 0.0, 128, 6),
        Setting("spread", _stages(0.05, 0.2), 0.0, 128, 8),
        Setting("latency", _stages(0.1, 0.1), 0.05, 128, 6),
        Setting("far", _stages(0.005, 0.005), 0.1, 1024, 6),
        Setting("far_15_ms", _stages(0.015, 0.015), 0.1, 512, 8),  # 5 ms of it forward
        Setting("far_25_ms", _stages(0.025, 0.025), 0.1, 256, 10),  # for want of cores
    )
}


def max_flow(speeds: Sequence[Sequence[Speed]]) -> float:
    """Microbatches per second through one replica of each stage, any of them after any other."""
    graph = networkx.DiGraph()
    before: list[Any] = ["source"]
    for stage, replicas in enumerate(speeds):
        for number, speed in enumerate(replicas):
            enter, leave = (stage, number, "in"), (stage, number, "out")
            graph.add_edge(enter, leave, capacity=speed.microbatches_per_s)
            graph.add_edges_from((other, enter) for other in before)  # links do not limit it
        before = [(stage, number, "out") for number in range(len(replicas))]
    graph.add_edges_from((other, "sink") for other in before)
    return float(networkx.maximum_flow_value(graph, "source", "sink"))


def measure(
    setting: Setting, folder: Path, disturb: Callable[[LocalSwarm], None] | None = None
) -> dict[str, object]:
    """Run it, `disturb` it if that is asked, and say what was set and what was reached. Raises
    RunError."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    config = folder / "bench.toml"
    config.write_text(CONFIG, encoding="utf-8")
    stages = len(setting.speeds)
    overrides = {
        "model.kind": MODEL,
        "model.layers": stages,
        "model.options": (
            f"{{layers = {stages}, vocab = 256, width = 8, idle = {setting.idle_parameters}}}"
        ),
        "stages.layers": [1] * stages,
        "data.source": text,
        "batch.microbatches": setting.microbatches,
        "optimizer.staleness": setting.staleness,
        "optimizer.fresh_steps": 0,
        **setting.overrides,
    }
    run_dir = folder / setting.name
    replicas = [len(speeds) for speeds in setting.speeds]
    last = WARM_UP_STEPS + setting.steps
    patience_s = START_S + PATIENCE * last * setting.microbatches / setting.ideal_per_s
    with LocalSwarm(
        config,
        replicas,
        run_dir=run_dir,
        overrides=overrides,
        threads=1,
        speeds=setting.speeds,
        link_delay_s=setting.link_delay_s,
        link_rate=setting.link_rate,
    ) as swarm:
        if disturb is not None:
            disturb(swarm)
        swarm.wait(last, patience_s)
        for part in [swarm.trainer, *swarm.peers()]:
            part.kill()  # nobody needs what is under way
    commits_at, recoveries = _history(run_dir / "metrics.jsonl", last)
    seconds = commits_at[last] - commits_at[WARM_UP_STEPS]
    reached = setting.steps * setting.microbatches / seconds
    return {
        "over_ideal": reached / setting.ideal_per_s,
        "microbatches_per_s": reached,
        "ideal_microbatches_per_s": setting.ideal_per_s,
        "seconds": seconds,
        "steps": setting.steps,
        "microbatches_a_step": setting.microbatches,
        "staleness": setting.staleness,
        "service_s": [[s.forward_s + s.backward_s for s in stage] for stage in setting.speeds],
        "link_delay_s": setting.link_delay_s,
        "recoveries": recoveries,
    }


def _history(metrics: Path, last: int) -> tuple[dict[int, float], dict[str, int]]:
    """Return when each version was committed, and how much had to be done again in the measured
    steps, by kind: nothing, one hopes."""
    commits_at, recoveries = {0: -math.inf}, Counter[str]()
    for entry in json_lines(metrics):
        match entry:
            case {"version": version, "digests": _, "time": time}:
                commits_at[version] = time
            case {"recovery": what, "count": count} if WARM_UP_STEPS in commits_at and (
                last not in commits_at
            ):
                recoveries[what] += count
    return commits_at, dict(recoveries)


def changed(setting: Setting, **changes: float | str | None) -> Setting:
    """Return the setting with other numbers, where they are given."""
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(setting, **given)  # type: ignore[arg-type]
