"""Configurations to start from, for each strategy that is built in.

A replica's own step has as many sequences as a whole step has without averaging. A round comes
after as many of them as keep most of what a synchronous run learns: about two of each replica's for
`async`, where two replicas share a stage; ever fewer parameters at a time for `sparta`, so that a
round may come as often; and longer intervals for `diloco`, which has an outer momentum for
them. The first steps, in which weights move fastest, are synchronous.
"""

from __future__ import annotations

from typing import Any

from swarmrt.config import SYNC, RunConfig, parse_config

LOCAL_BATCH = 8  # microbatches
SYNC_STEPS = 10

_STARTS: dict[str, dict[str, Any]] = {
    "async": {"batch": {"microbatches": 32}},
    "sparta": {"batch": {"microbatches": 32}, "averaging": {"share": 0.1}},
    "diloco": {"batch": {"microbatches": 128}},
    "lofi": {"batch": {"microbatches": 32}},
}


def start_of(strategy: str) -> RunConfig:
    """Return a configuration to start from. Raises ConfigError for a strategy that is none."""
    if strategy == SYNC:
        return RunConfig()
    averaging = {"strategy": strategy, "local_batch": LOCAL_BATCH, "sync_steps": SYNC_STEPS}
    sections = _STARTS.get(strategy, {})
    averaging |= sections.get("averaging", {})
    return parse_config({**sections, "averaging": averaging}, f"--strategy {strategy}")
