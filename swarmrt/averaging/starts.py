"""Configurations to start from, for each strategy that is built in.

A microbatch is one sequence, so that little of a step is between forward and backward: then few
gradients are late where each stage has two replicas on one machine. A replica's own step is of as
many sequences as a whole step without averaging, or of more where more is under way. A step, after
which a round comes, is many times as long, for `diloco` longer still; so what counts steps counts
fewer. The first one, after which a newcomer's moments are those of all, is synchronous. With `demo`
all are.
"""

from __future__ import annotations

from typing import Any

from swarmrt.config import DEMO, SYNC, RunConfig
from swarmrt.config_toml import parse_config

LONGER = {"diloco": 32}  # times as many sequences in a step as without averaging
MUCH_LONGER = 16
SYNC_STEPS = 1
STEPS = 60
BY_SIGNS = {"kind": "sgd", "lr": 1e-3, "clip_norm": 0.0}  # each step moves every weight by the rate


def start_of(strategy: str) -> RunConfig:
    """Return a configuration to start from. Raises ConfigError for a strategy that is none."""
    usual = RunConfig()
    if strategy == SYNC:
        return usual
    if strategy == DEMO:
        return parse_config({"optimizer": BY_SIGNS, "averaging": {"strategy": DEMO}}, strategy)
    sequences = usual.batch.microbatch * usual.batch.microbatches
    longer = LONGER.get(strategy, MUCH_LONGER)
    sections: dict[str, dict[str, Any]] = {
        "run": {"steps": STEPS},
        "batch": {"microbatch": 1, "microbatches": longer * sequences},
        "optimizer": {"warmup_steps": -(-usual.optimizer.warmup_steps // longer)},
        "evaluation": {"every_steps": -(-usual.evaluation.every_steps // longer)},
        "checkpoint": {"every_steps": -(-usual.checkpoint.every_steps // longer)},
        "averaging": {
            "strategy": strategy,
            "local_batch": sequences,
            "sync_steps": SYNC_STEPS,
        },
    }
    return parse_config(sections, f"--strategy {strategy}")
