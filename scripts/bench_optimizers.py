"""A comparison of what Muon and AdamW learn, at several rates each.

    .venv/bin/python scripts/bench_optimizers.py [--steps 120] [--rates 2e-3 4e-3 8e-3]

Trains the quickstart's model with `swarmrt reference` at equal tokens, and evaluates the weights on
its held-out text.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch
from bench_staleness import held_out_loss

KINDS = ("adamw", "muon")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3, 4e-3, 8e-3])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--set", nargs="+", default=[], help="more settings: SECTION.KEY=VALUE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    losses: dict[str, dict[str, float]] = {}
    for kind in options.kinds:
        for rate in options.rates:
            how = [f"optimizer.kind={kind}", f"optimizer.lr={rate}", f"run.steps={options.steps}"]
            loss = held_out_loss([*how, *options.set])
            losses.setdefault(kind, {})[str(rate)] = loss
            print(f"{kind} at {rate}: {loss:.4f}", file=sys.stderr)
    print(json.dumps({"steps": options.steps, "held_out_loss": losses}, indent=1))


if __name__ == "__main__":
    main()
