"""The stages of `training` in a swarm on the one device: what is left of their throughput.

Both stages share the device, so that together they can be no faster than one that computes both.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from pathlib import Path

import torch

from swarmrt.check_gpu.experiment import commits
from swarmrt.check_gpu.job import Job
from swarmrt.check_gpu.machine import smi
from swarmrt.check_gpu.sizes import config_for, flops_per_token
from swarmrt.check_gpu.training import data_sheet_flops_per_s
from swarmrt.config import RunConfig
from swarmrt.config_toml import dump_toml
from swarmrt.lab import LocalSwarm
from swarmrt.model.layers import Block
from swarmrt.observe.log import what_happened
from swarmrt.scheduler.events import BackwardDone, ForwardDone, WeightGradientsDone

WARM_UP = 2  # steps: links are dialed, memory is made room in
MEASURED = 4
SAMPLE_MS = 200
Computed = ForwardDone | BackwardDone | WeightGradientsDone


def check(job: Job) -> None:
    config = config_for(job)
    path = job.folder / "figures.toml"
    path.write_text(dump_toml(config), encoding="utf-8")
    run_dir = job.folder / "run"
    samples = job.folder / "samples.csv"
    with LocalSwarm(path, [1, 1], run_dir=run_dir, device=job.device) as swarm:
        swarm.wait(WARM_UP, job.left_s)
        sampling = _sample(samples)
        began_at = time.monotonic()
        last = WARM_UP
        while last < WARM_UP + MEASURED and job.left_s > 15:
            last += 1
            swarm.wait(last, job.left_s)
        ended_at = time.monotonic()
        for part in (swarm.trainer, *swarm.peers()):
            part.kill()  # nobody needs what is under way
        if sampling is not None:
            sampling.terminate()
            sampling.wait()
    seconds = sum(commit["seconds"] for commit in commits(run_dir)[WARM_UP:last])
    rate = (last - WARM_UP) * config.tokens_per_step / seconds
    _rates(job, config, rate)
    job.book.figure("steps", last - WARM_UP)
    job.book.figure("seconds_of_a_step", seconds / (last - WARM_UP))
    for peer, fraction in _computing(run_dir, began_at, ended_at).items():
        job.book.figure(f"{peer}_computes_fraction", fraction)
    busy = _samples(job, samples)
    job.book.say(f"{rate:,.0f} tokens/s{busy}")


def _rates(job: Job, config: RunConfig, rate: float) -> None:
    """Return the rates of the whole model: MFU counts what both stages compute."""
    matrices = config.model.layers * _matrices_of_a_layer(config)
    flops = 2 * flops_per_token(config, matrices // 2)
    job.book.figure("tokens_per_s", rate)
    job.book.figure("flops_per_s", rate * flops)
    peak = data_sheet_flops_per_s(job)
    if peak is not None:
        job.book.figure("mfu", rate * flops / peak)


def _matrices_of_a_layer(config: RunConfig) -> int:
    with torch.device("meta"):  # nothing but shapes
        block = Block(config.model)
    return sum(p.numel() for p in block.parameters() if p.dim() >= 2)


# ---------------------------------------------------------------------- how busy


def _computing(run_dir: Path, began_at: float, ended_at: float) -> dict[str, float]:
    """The share of the time in which each peer computed, by its log; clocks are the machine's."""
    shares = {}
    for log in sorted(run_dir.glob("peers/**/events.jsonl")):
        events = (r.event for r in what_happened(log) if began_at <= r.now <= ended_at)
        done = (event.seconds for event in events if isinstance(event, Computed))
        shares[log.parent.name] = sum(done) / (ended_at - began_at)
    return shares


def _sample(path: Path) -> subprocess.Popen[bytes] | None:
    """Have nvidia-smi write down how busy the card is, again and again; None without one."""
    if not smi("utilization.gpu") or shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--id=0"]
    command += ["--format=csv,noheader,nounits", f"--loop-ms={SAMPLE_MS}"]
    with path.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stdin=subprocess.DEVNULL)


def _samples(job: Job, path: Path) -> str:
    """The share of time in which anything was computed, and the most memory that was used."""
    if not path.exists():
        return ""
    rows = [line.split(",") for line in path.read_text().splitlines()]
    whole = [(float(row[0]), float(row[1])) for row in rows if len(row) == 2 and _is_number(row[0])]
    if not whole:
        return ""
    busy = statistics.mean(percent for percent, _ in whole) / 100
    job.book.figure("device_busy_fraction", busy)
    job.book.figure("memory_used_bytes", max(mebibytes for _, mebibytes in whole) * 2**20)
    return f", the device computes {busy:.2f} of the time"


def _is_number(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdigit()
