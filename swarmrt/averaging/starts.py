"""Configurations to start from, for each strategy that is built in.

A replica's own step is of as many microbatches as a whole step without averaging. A round comes
after a few of them: with two replicas of a stage after two of each, and after four for `diloco`,
which is for longer intervals. A step is that much longer, so what counts steps counts fewer. The
first ones, in which weights move fastest, are synchronous.
"""

from __future__ import annotations

from typing import Any

from swarmrt.config import SYNC, RunConfig
from swarmrt.config_toml import parse_config

OWN_STEPS = {"diloco": 8}  # of all replicas of a stage, between two rounds
FEW_OWN_STEPS = 4
SYNC_STEPS = 5


def start_of(strategy: str) -> RunConfig:
    """Return a configuration to start from. Raises ConfigError for a strategy that is none."""
    usual = RunConfig()
    if strategy == SYNC:
        return usual
    local_batch, longer = usual.batch.microbatches, OWN_STEPS.get(strategy, FEW_OWN_STEPS)
    sections: dict[str, dict[str, Any]] = {
        "batch": {"microbatches": longer * local_batch},
        "optimizer": {"warmup_steps": -(-usual.optimizer.warmup_steps // longer)},
        "evaluation": {"every_steps": -(-usual.evaluation.every_steps // longer)},
        "checkpoint": {"every_steps": -(-usual.checkpoint.every_steps // longer)},
        "averaging": {
            "strategy": strategy,
            "local_batch": local_batch,
            "sync_steps": SYNC_STEPS,
        },
    }
    return parse_config(sections, f"--strategy {strategy}")
