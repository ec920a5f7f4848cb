"""A small swarm that loses a peer, and what became of its run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from swarmrt.check_gpu.job import Job
from swarmrt.check_gpu.wheels import ROOT
from swarmrt.lab import LocalSwarm
from swarmrt.observe.log import read_entries

STEPS = 30
KILL_AFTER = 8  # steps
REPLICAS = [2, 2]
QUICKSTART = ROOT / "examples" / "quickstart.toml"
# With the quickstart's own rate and epsilon AdamW makes a step of full length of a gradient that is
# nearly 0, whatever its sign: sums in another order are 1e8 times as far apart after these steps.
SETTINGS: dict[str, object] = {
    "optimizer.lr": 1e-3,
    "optimizer.eps": 1e-3,
    "run.steps": STEPS,
    "stages.count": 2,
    "stages.layers": [3, 3],
    "checkpoint.every_steps": 0,
    "evaluation.microbatches": 2,
}
SMALLER = {"model.width": 64, "model.sequence": 32}  # where there is no GPU


def train_and_kill(job: Job, settings: Mapping[str, object]) -> LocalSwarm:
    """The quickstart's model, of which a peer is killed in the middle. Its run has ended then."""
    swarm = LocalSwarm(
        QUICKSTART,
        REPLICAS,
        run_dir=job.folder / "run",
        overrides={**SETTINGS, **({} if job.is_gpu else SMALLER), **settings},
        device=job.device,
    )
    with swarm:
        swarm.wait(KILL_AFTER, job.left_s)
        victim = swarm.peers(stage=0)[0]
        victim.kill()
        swarm.finish(job.left_s)
    return swarm


def judge(job: Job, swarm: LocalSwarm, bound: float) -> None:
    """Replicas equal after every step, the audit clean, weights as of one process."""
    found = commits(swarm.run_dir)
    job.book.figure("steps", len(found))
    job.book.expect(len(found) == STEPS, f"{len(found)} of {STEPS} steps were committed")
    apart = [c["version"] for c in found if any(len(set(d.values())) > 1 for d in c["digests"])]
    job.book.expect(not apart, f"replicas differed after the steps {apart}")
    sizes = [[len(stage) for stage in commit["digests"]] for commit in found]
    job.book.expect(sizes[0] == REPLICAS, f"the first step had the replicas {sizes[0]}")
    job.book.expect(sizes[-1] == [1, 2], f"the last step had the replicas {sizes[-1]}, not 1, 2")
    audit = swarm.audit()
    job.book.figure("audit", audit.lines()[0])
    job.book.figure("recovered", audit.recovered)
    job.book.expect(audit.passed, f"the audit: {audit.lines()[0]}")
    job.book.expect(audit.fenced > 0, "nobody was fenced: the kill did not bite")
    apart_by = _difference(job, swarm)
    job.book.figure("weights against one process", apart_by)
    job.book.expect(
        apart_by <= bound, f"weights differ from one process's by {apart_by:.1e}, over {bound:.0e}"
    )
    job.book.say(
        f"{STEPS} steps, replicas equal to the bit, {audit.recovered} microbatches recovered; "
        f"weights {apart_by:.1e} from one process on {job.device}"
    )


def commits(run_dir: Path) -> list[dict[str, Any]]:
    """Return what the trainer wrote of each committed step: `digests` are by stage and peer."""
    return [line for line in read_entries(run_dir / "metrics.jsonl") if "digests" in line]


def _difference(job: Job, swarm: LocalSwarm) -> float:
    """Return the difference of the weights to those of one process on the same device: the largest
    over all tensors, relative to the tensor's own largest value."""
    ours, alone = (job.folder / f"{name}.safetensors" for name in ("swarm", "alone"))
    command(job, "export", swarm.run_dir, "--out", ours)
    config = swarm.run_dir / "config.toml"
    steps = ["--steps", STEPS, "--device", job.device]
    command(job, "reference", config, "--out", alone, *steps)
    one, other = safetensors.torch.load_file(ours), safetensors.torch.load_file(alone)
    if one.keys() != other.keys():
        raise SystemExit("the exported weights have other names than those of one process")
    return max(float((one[n] - other[n]).abs().max() / other[n].abs().max()) for n in one)


def command(job: Job, *arguments: object) -> None:
    """A command of swarmrt, to its end. Raises CalledProcessError when it fails."""
    words = [sys.executable, "-m", "swarmrt", *map(str, arguments)]
    print(json.dumps(words[2:]), flush=True)
    subprocess.run(words, check=True, timeout=max(1.0, job.left_s))
