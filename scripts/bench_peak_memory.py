"""Measure the peak memory of peers of three unlike stages, beside what is predicted of them.

    python scripts/bench_peak_memory.py [SECTION.KEY=JSON]...

The swarm trains for some steps, and until there have been as many checkpoints as peers keep states
for others.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from swarmrt.lab.placing.peak_memory import process_bytes, snapshots_kept
from swarmrt.lab.swarm.swarm import LocalSwarm
from swarmrt.model.partition import resolve
from swarmrt.model.sizing import footprint
from swarmrt.observe.log import what_happened
from swarmrt.scheduler.events import CheckpointSaved

STEPS = 8
WAIT_S = 240.0
STEP_S = 1.0  # or a few: checkpoints are nearer to each other than states are kept
CONFIG = """
[run]
name = "peak-memory"
steps = 1000
[model]
width = 512
heads = 8
kv_heads = 8
layers = 9
sequence = 64
[stages]
layers = [2, 4, 3]
[batch]
microbatch = 1
microbatches = 12
[optimizer]
warmup_steps = 0
[evaluation]
every_steps = 0
[checkpoint]
every_steps = 2
"""
TEXT = "All work and no play makes a large stage.\n" * 2000


def peak_of(pid: int) -> int:
    """Return the most resident memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def saved(log: Path) -> int:
    """Return how many checkpoints there have been."""
    return sum(isinstance(record.event, CheckpointSaved) for record in what_happened(log))


def main(settings: list[str]) -> None:
    overrides = {key: json.loads(value) for key, _, value in (s.partition("=") for s in settings)}
    with tempfile.TemporaryDirectory(prefix="swarmrt-bench-") as name:
        folder = Path(name)
        (folder / "text.txt").write_text(TEXT)
        (folder / "bench.toml").write_text(CONFIG)
        overrides |= {"data.source": folder / "text.txt", "model.vocab": 256}
        with LocalSwarm(
            folder / "bench.toml", [2, 2, 2], run_dir=folder / "run", overrides=overrides, threads=1
        ) as swarm:
            config = resolve(swarm.config)
            snapshots, log = snapshots_kept(config, STEP_S), swarm.run_dir / "trainer/events.jsonl"
            swarm.wait(STEPS)
            swarm.wait_until(lambda: saved(log) >= snapshots, "checkpoints", WAIT_S)
            measured = [(peer.stage, peak_of(peer.pid)) for peer in swarm.peers()]
    process = process_bytes()
    print(f"a process that serves nothing: {process / 1e6:.0f} MB; {snapshots} states for others")
    for stage, bytes_ in measured:
        needed = footprint(config, stage)
        predicted = process + needed.peak_bytes(snapshots)
        print(
            f"stage {stage}, {needed.parameters / 1e6:.1f} million parameters: predicted "
            f"{predicted / 1e6:.0f} MB, measured {bytes_ / 1e6:.0f} MB: {predicted / bytes_:.3f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
