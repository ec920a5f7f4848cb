"""What a staleness of 1 costs in quality, and what prediction and fresh first steps regain.

    .venv/bin/python scripts/bench_staleness.py [--steps 240] [--seeds 0 1] [--out staleness.json]

Trains the quickstart's model with `swarmrt reference` four ways for each seed, at equal rates and
tokens, and evaluates the weights on its held-out text. A way of a seed that the file has already is
not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import safetensors.torch
import torch

from swarmrt.config_toml import load_config
from swarmrt.data import open_data
from swarmrt.model.evaluation import HeldOut

CONFIG = Path(__file__).parents[1] / "examples" / "quickstart.toml"
SEQUENCES = 64  # of the held-out text
WAYS = {
    "fresh": ("optimizer.staleness=0",),
    "stale": ("optimizer.staleness=1", "optimizer.predict=false"),
    "predicted": ("optimizer.staleness=1",),
    "begun_fresh": ("optimizer.staleness=1", "optimizer.fresh_steps=40"),
}


def held_out_loss(settings: list[str]) -> float:
    """Train so in a process of its own, and return the mean loss of its weights."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        command = [sys.executable, "-m", "swarmrt", "reference", str(CONFIG), "--out", str(weights)]
        command += [part for setting in settings for part in ("--set", setting)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=sys.stderr, env=environment)
        tensors = safetensors.torch.load_file(weights)
    config = load_config(CONFIG, settings)
    held_out = HeldOut(config, tensors, open_data(config), SEQUENCES)
    return held_out.loss(tensors.items())


def summary(losses: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return for each way the mean loss of the seeds that have gone all ways, and the share of the
    gap between the first two."""
    seeds = sorted(set.intersection(*(set(losses[way]) for way in WAYS)))
    if not seeds:
        return {}
    means = {way: statistics.mean(losses[way][seed] for seed in seeds) for way in WAYS}
    gap = means["stale"] - means["fresh"]
    return {way: {"loss": m, "gap": (m - means["fresh"]) / gap} for way, m in means.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--out", type=Path, default=Path("staleness.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = (
        json.loads(options.out.read_text()) if options.out.exists() else {"steps": options.steps}
    )
    if found["steps"] != options.steps:
        parser.error(f"{options.out} has losses after {found['steps']} steps; give another --out")
    losses = found.setdefault("held_out_loss", {way: {} for way in WAYS})
    for seed in options.seeds:
        for way in options.ways:
            if str(seed) not in losses[way]:
                settings = [*WAYS[way], f"run.seed={seed}", f"run.steps={options.steps}"]
                losses[way][str(seed)] = held_out_loss(settings)
                found["summary"] = summary(losses)
                options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
