"""Replicas that round differently, as real processes: one has none of the CPU's vector units."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarmrt import lab
from tests.test_end_to_end import EXACT, difference_to_reference

pytestmark = pytest.mark.swarm

PLAIN = {"ATEN_CPU_CAPABILITY": "default"}  # torch then does not use vector instructions
UPDATE = """
import torch
from swarmrt.config import RunConfig
from swarmrt.kernels.digest import digest
from swarmrt.model.optimizer import update
steps = torch.arange(1003, dtype=torch.float64)
values, gradient = (0.37 * steps).sin(), (0.11 * steps).cos() * 1e-2
moments = {name: torch.zeros_like(values) for name in ("exp_avg", "exp_avg_sq")}
count = torch.zeros(())
for _ in range(3):
    update(RunConfig(), values, gradient, moments, count, 1e-3, decayed=True)
print(digest(values))
"""


def test_this_machine_can_be_made_to_round_differently() -> None:
    digests = set()
    for variables in ({}, PLAIN):
        command = [sys.executable, "-c", UPDATE]
        environment = {**os.environ, **variables}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 2


def test_unlike_replica_takes_part_where_owners_update(tmp_path: Path) -> None:
    """It draws other weights of version 0 as well, and comes at version 1."""
    config = tmp_path / "exact.toml"
    config.write_text(EXACT.replace("count = 3", "count = 2").replace("steps = 20", "steps = 30"))
    settings = {"optimizer.applied_by": "owners", "links.record_ttl_s": 15}
    run_dir = tmp_path / "run"
    plain = {(1, 1): PLAIN}
    with lab.LocalSwarm(
        config, (1, 2), run_dir=run_dir, overrides=settings, variables=plain
    ) as swarm:
        unlike = swarm.peers(1)[1].peer_id
        swarm.finish()
        audit = swarm.audit()
    assert audit.passed, audit.lines()
    text = (run_dir / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    assert not any("expelled" in line for line in lines)
    steps = [line["digests"][1] for line in lines if "digests" in line]
    assert len(steps) == 30 and all(len(set(stage.values())) == 1 for stage in steps)
    assert unlike in steps[-1], "it takes part"
    assert difference_to_reference(run_dir, config, tmp_path, steps=30) < 1e-9
