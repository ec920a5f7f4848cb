"""What the guarantees cost when nothing fails: tokens/s with retention over those without.

    .venv/bin/python scripts/bench_retention.py [--steps 40] [--rounds 3]

Both sides run in turn, so that a drift of the machine hits them alike. The first steps are not
counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CONFIG = """
[run]
name = "retention"
[model]
layers = 4
width = 256
sequence = 128
[stages]
count = 2
[batch]
microbatch = 4
microbatches = 16
[evaluation]
every_steps = 0
[checkpoint]
every_steps = 0
"""
WARM_UP = 5  # steps


def tokens_per_s(config: Path, run_dir: Path, steps: int, retain_bytes: int) -> float:
    command = [sys.executable, "-m", "swarmrt", "local", str(config), "--steps", str(steps)]
    command += ["--run-dir", str(run_dir), "--set", f"links.retain_bytes={retain_bytes}"]
    subprocess.run(command, check=True, capture_output=True)
    lines = map(json.loads, filter(None, (run_dir / "metrics.jsonl").read_text().splitlines()))
    committed = [line for line in lines if "seconds" in line and line["version"] > WARM_UP]
    return sum(line["tokens"] for line in committed) / sum(line["seconds"] for line in committed)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "retention.toml"
        config.write_text(CONFIG)
        for number in range(options.rounds):
            rates = [
                tokens_per_s(config, Path(folder) / f"{number}-{budget}", options.steps, budget)
                for budget in (1 << 30, 0)
            ]
            ratios.append(rates[0] / rates[1])
            print(f"with {rates[0]:,.0f}, without {rates[1]:,.0f} tokens/s: {ratios[-1]:.3f}")
    print(json.dumps({"retention_over_none": statistics.median(ratios), "rounds": ratios}))


if __name__ == "__main__":
    main()
