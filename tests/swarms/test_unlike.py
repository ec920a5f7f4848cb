"""Replicas that round differently, as real processes: one has none of the CPU's vector units."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarmrt import lab
from tests.processes import PATIENCE_S
from tests.swarms.test_end_to_end import EXACT, difference_to_reference

pytestmark = pytest.mark.swarm

PLAIN = {"ATEN_CPU_CAPABILITY": "default"}  # torch then does not use vector instructions
UPDATE = """
import torch
from swarmrt.config import RunConfig
from swarmrt.kernels.digest import digest
from swarmrt.model.optimizer import update
from swarmrt.model.pieces import Piece
steps = torch.arange(1003, dtype=torch.float64)
values, gradient = (0.37 * steps).sin(), (0.11 * steps).cos() * 1e-2
moments = {name: torch.zeros_like(values) for name in ("exp_avg", "exp_avg_sq")}
count = torch.zeros(())
for _ in range(3):
    update(RunConfig(), Piece("adamw", 0, 1003, True), values, gradient, moments, count, 1e-3)
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


@pytest.mark.parametrize(("applied_by", "kind"), [("owners", "adamw"), ("all", "muon")])
def test_unlike_newcomer_takes_part_where_owners_update(
    tmp_path: Path, applied_by: str, kind: str
) -> None:
    """They do from the beginning, or from when its first update differs."""
    config, run_dir = tmp_path / "exact.toml", tmp_path / "run"
    config.write_text(EXACT.replace("count = 3", "count = 2"))
    overrides = {
        "optimizer.applied_by": applied_by,
        "optimizer.kind": kind,
        "run.steps": 1000,
        "batch.microbatches": 40,
        "model.dropout": 0.0,  # what is dropped is drawn with the CPU's vector units
    }
    with lab.LocalSwarm(
        config, (1, 1), run_dir=run_dir, overrides=overrides, variables={(1, 1): PLAIN}, threads=1
    ) as swarm:
        swarm.wait(step=1)
        newcomer = swarm.spawn(stage=1)
        swarm.wait_until(
            lambda: newcomer.seat in swarm.members(1), "the newcomer in a commit", PATIENCE_S
        )
        swarm.wait(step=swarm.version + 5)
        unlike, in_the_end = newcomer.seat, swarm.members(1)
        swarm.trainer.terminate()
        swarm.finish()
    audit = swarm.audit()
    assert audit.passed, audit.lines()
    assert unlike in in_the_end, swarm.trainer.output()
    assert "EXPELLED" not in swarm.trainer.output()
    text = (run_dir / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    steps = [line["digests"][1] for line in lines if "digests" in line]
    assert len(steps) == swarm.version and all(len(set(step.values())) == 1 for step in steps)
    settings = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    difference = difference_to_reference(run_dir, config, tmp_path, *settings, steps=swarm.version)
    assert difference < 1e-9
